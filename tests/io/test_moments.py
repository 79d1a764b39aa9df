"""Moments written and read back, and files that are something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from headstart.core import Unreadable
from headstart.io import moments as files
from headstart.numerics.moments import Moments


def made() -> Moments:
    x = np.random.default_rng(0).standard_normal((20, 4))
    return Moments.of(x, np.arange(20) % 3, 3, second=True, norms=True)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("sort", [False, True], ids=["as they come", "by their first column"])
@pytest.mark.parametrize("away", [0.0, 1e6])
def test_shards_on_disk_add_up(tmp_path: Path, kind: type[np.floating[Any]], sort: bool, away: float) -> None:
    """Of unequal size, each about a mean of its own: what they give together is what all rows do, to 1e-12.

    A float32 number is exact in float64, so that features stored as such lose nothing either.
    """
    x, y = (np.random.default_rng(1).standard_normal((900, 5)) + away).astype(kind), np.arange(900) % 3
    if sort:
        order = x[:, 0].argsort()
        x, y = x[order], y[order]
    for at, (start, stop) in enumerate([(0, 1), (1, 300), (300, 880), (880, 900)]):
        rows = slice(start, stop)
        files.write(Moments.of(x[rows], y[rows], 3, second=True, norms=True), tmp_path / f"{at}.safetensors")
    one, two, three, four = (files.read(tmp_path / f"{at}.safetensors") for at in range(4))
    for total in ((one + two) + (three + four), four + three + two + one):
        whole = Moments.of(x, y, 3, second=True, norms=True)
        unit = np.sqrt(whole.variance)
        for name in ("mean", "class_means"):
            np.testing.assert_allclose(
                getattr(total, name), getattr(whole, name), rtol=1e-12, atol=1e-12 * float(unit.max())
            )
        for name in ("variance", "class_variances", "class_spreads", "target_mean", "shrinkage"):
            np.testing.assert_allclose(getattr(total, name), getattr(whole, name), rtol=1e-12)
        for name in ("centred_gram", "within_gram"):
            scale = 900 * np.outer(unit, unit)
            np.testing.assert_allclose(getattr(total, name) / scale, getattr(whole, name) / scale, rtol=0, atol=1e-12)


def test_the_same_bits_come_back(tmp_path: Path) -> None:
    first = made()
    files.write(first, tmp_path / "m.safetensors")
    again = files.read(tmp_path / "m.safetensors")
    assert {k: v.tobytes() for k, v in again.arrays().items()} == {k: v.tobytes() for k, v in first.arrays().items()}
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    with pytest.raises(Unreadable, match="not a readable file"):
        files.read(path)
    path.write_bytes(b"no tensors")
    with pytest.raises(Unreadable, match="not a readable file"):
        files.read(path)
    save_file({"gram": np.eye(2)}, path)
    with pytest.raises(Unreadable, match="no moments"):
        files.read(path)
    save_file(made().arrays(), path, metadata={"headstart": "moments", "format": "2"})
    with pytest.raises(Unreadable, match="newer version"):
        files.read(path)
    save_file({"gram": np.eye(2)}, path, metadata={"headstart": "moments", "format": "1"})
    with pytest.raises(Unreadable, match="missing or misshapen"):
        files.read(path)
