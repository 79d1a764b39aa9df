"""Ours against what the authors' own code gave on the same numbers: `benchmarks/published_reference.py`."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmark_files import benchmark_files
from headstart.combination.learning.adamerging import AdaMerging
from headstart.combination.matching.fisher import Fisher
from headstart.combination.matching.mats import MaTS
from headstart.combination.matching.regmean import RegMean
from headstart.combination.merging.iso_c import IsoC
from headstart.combination.merging.iso_cts import IsoCts
from headstart.combination.merging.tsv_m import TsvM
from headstart.combination.routing.twin_merge import TwinMerge
from headstart.combination.trimming.pcb import Pcb
from headstart.core import Passes, Steps
from headstart.numerics.delta import dense
from headstart.testing.combination_learning import LinearTasks
from headstart.testing.combination_matching import any_context
from headstart.testing.merges import merged

RESULTS = json.loads((Path(__file__).parents[1] / "data" / "published.json").read_text())["results"]
NEAR = 5e-6  # float32, of numbers near 1, after as many as four SVDs


@pytest.fixture(scope="module")
def drawn() -> Iterator[Any]:
    """The benchmark's file, which draws the numbers."""
    with benchmark_files() as by_name:
        yield by_name("published_reference")


def theirs(method: str, tensor: str) -> np.ndarray[Any, Any]:
    return np.frombuffer(base64.b64decode(RESULTS[method][tensor]), np.float32)


def near(ours: torch.Tensor, method: str, tensor: str) -> None:
    np.testing.assert_allclose(ours.numpy().ravel(), theirs(method, tensor), atol=NEAR, rtol=NEAR)


@pytest.mark.parametrize(("name", "method"), [("iso_c", IsoC()), ("iso_cts", IsoCts(common=0.5)), ("tsv_m", TsvM())])
def test_spectral_merges(name: str, method: Any, drawn: Any) -> None:
    changes = drawn.changes()
    base = {n: torch.zeros_like(c) for n, c in changes[0].items()}
    for tensor, ours in merged("merging", method, base, changes).items():
        near(ours, name, tensor)


def test_pcb_over_all_tensors(drawn: Any) -> None:
    changes = drawn.changes()
    base = {n: torch.zeros_like(c) for n, c in changes[0].items()}
    ours = merged("trimming", Pcb(density=0.1, scale=1.0), base, changes)
    near(torch.cat([ours[n].ravel() for n in changes[0]]), "pcb", "all")


def test_merges_by_passes(drawn: Any) -> None:
    tuned, grams, outputs, squares = drawn.layers()
    sides = zip(grams, outputs, squares, strict=True)
    passes = [Passes(squares=s, inputs=g.double(), gradients=d.double()) for g, d, s in sides]
    mats = {"start": 1 / drawn.MODELS, "steps": drawn.SOLVED}
    methods: dict[str, Any] = {
        "regmean": RegMean(shrink=drawn.KEPT),
        "fisher": Fisher(floor=1e-6),
        "mats, inputs": MaTS(objective="inputs", **mats),
        "mats, kronecker": MaTS(objective="kronecker", **mats),
    }
    for name, method in methods.items():
        shape = tuple(tuned[0].shape)
        near(method(any_context(shape), torch.zeros(shape), tuned, passes), name, "layer.weight")


def test_what_twin_merge_keeps_of_each_model(drawn: Any) -> None:
    method = TwinMerge(settings=(("scale", 0.3),), keep=drawn.RANK)
    found = method(tasks(drawn), Steps(horizon=1))
    for model, parts in enumerate(found.experts):
        near(dense(parts["weight"]), "twin_merge", str(model))


def tasks(drawn: Any) -> LinearTasks:
    view = LinearTasks(0, tasks=drawn.MODELS, models=drawn.MODELS, labels=False)
    view._base, view._changes, view._x = drawn.classifiers()
    view.rows = lambda task: drawn.ROWS  # type: ignore[method-assign]
    return view


@pytest.mark.parametrize(("name", "per"), [("layer", "tensor"), ("task", "model")])
def test_shares_that_adamerging_learns(name: str, per: Any, drawn: Any) -> None:
    method = AdaMerging(per=per, batch=drawn.ROWS, learning_rate=drawn.LEARNING_RATE)
    shares = method(tasks(drawn), Steps(horizon=drawn.STEPS)).shares
    assert shares is not None
    wanted = theirs(f"adamerging by {name}", "shares").reshape(-1, drawn.MODELS)
    np.testing.assert_allclose(shares, np.broadcast_to(wanted, shares.shape), atol=1e-5)  # 20 steps of float32 slopes
    assert np.abs(wanted - 0.3).max() > 0.05
