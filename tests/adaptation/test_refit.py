"""Refitting on all rows, of systems that count steps and of those that do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import headstart as hs


def test_trees_are_refitted_after_their_folds(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).normal(size=(40, 3))
    target = hs.read_target((numbers, numbers[:, 0] - numbers[:, 1]))
    result = hs.solve(target, sources=[], out=tmp_path / "out", executor="in_process", show="none")
    assert {b["name"] for b in result.summary["baselines"]} == {"column_linear", "lightgbm", "majority"}
