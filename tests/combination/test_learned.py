"""Shares behind gates, as the stream makes them: against whole tensors in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headstart.combination.learned import Gated, digest
from headstart.numerics import stream
from headstart.numerics.made import Made, Memory, Part

SHAPES = {"matrix": (7, 5), "cube": (4, 3, 2), "vector": (9,), "number": ()}


@pytest.mark.parametrize("tile", [3, 1 << 18])
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("form", ["each", "shared", "rows", "number"])
def test_gates_tile_by_tile(name: str, form: str, tile: int) -> None:
    shape, rng = SHAPES[name], np.random.default_rng(0)
    base, *tuned = (torch.from_numpy(np.asarray(rng.normal(size=shape), np.float32)) for _ in range(3))
    rows = (2, *shape[:1], *[1] * (len(shape) - 1))
    gates = {
        "each": np.asarray(rng.normal(size=(2, *shape)) > 0),
        "shared": rng.normal(size=(1, *shape)),
        "rows": rng.normal(size=rows).astype(np.float32),
        "number": rng.normal(size=(2, *[1] * len(shape))),
    }[form]
    shares = (0.7, -0.2)
    readers = [Memory({"t": t}) for t in (base, *tuned)]
    parts = [Part(i, "t", "F32") for i in range(3)]
    made = Made("t", "F32", 4, shape, parts[0], tuple(parts[1:]), "merging", Gated(shares, gates))
    out = Memory({"t": torch.empty(shape)})
    stream.run([made], readers, out, threads=1, tile=tile)
    changes = torch.stack(tuned).double() - base.double()
    factors = torch.tensor(shares, dtype=torch.float64).view(2, *[1] * len(shape)) * torch.from_numpy(gates)
    torch.testing.assert_close(out.tensors["t"], (base + (factors * changes).sum(0)).float())


def test_a_digest_tells_gates_apart() -> None:
    one = np.array([[1.0, 0.0]], np.float32)
    digests = [digest(g) for g in ({"a": one}, {"b": one}, {"a": one.T}, {"a": 1 - one}, {"a": one, "b": one})]
    assert len(set(digests)) == 5
    assert digest({"a": one.astype(bool)}) == digests[0]
    assert digest({}) == ""
