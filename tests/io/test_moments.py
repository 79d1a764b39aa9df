"""Moments written and read back, and files that are something else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from headstart.core import Unreadable
from headstart.io import moments as files
from headstart.numerics.moments import Moments


def made() -> Moments:
    x = np.random.default_rng(0).standard_normal((20, 4))
    return Moments.of(x, np.arange(20) % 3, 3, second=True, norms=True)


def test_shards_on_disk_add_up(tmp_path: Path) -> None:
    x, y = np.random.default_rng(1).standard_normal((90, 5)) + 1e6, np.arange(90) % 3
    for at in range(3):
        files.write(Moments.of(x[at::3], y[at::3], 3, norms=True), tmp_path / f"{at}.safetensors")
    one, two, three = (files.read(tmp_path / f"{at}.safetensors") for at in range(3))
    total, whole = one + two + three, Moments.of(x, y, 3, norms=True)
    scale = np.abs(whole.centred_gram).max()
    np.testing.assert_allclose(total.centred_gram, whole.centred_gram, atol=1e-9 * scale)
    assert total.shrinkage == pytest.approx(whole.shrinkage, rel=1e-8)


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
