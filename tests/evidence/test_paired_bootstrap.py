"""The paired bootstrap on numbers done by hand: four rows of one class, of which one differs."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.core import Unfit
from headstart.evidence.checks.paired_bootstrap import PairedBootstrap


def test_by_hand() -> None:
    labels = np.zeros(4, dtype=np.int64)
    right, wrong = np.eye(2)[[0] * 4], np.eye(2)[[1, 0, 0, 0]]
    figures = PairedBootstrap()(right, wrong, labels, list("abcd"), "accuracy").figures
    assert figures["value"] == 0.25
    # the differing row is in no draw with probability (3/4)^4 = 0.32, so the low end is 0
    assert figures["low"] == 0
    # it is drawn 3 times of 4 or more in 5.1 % of draws, 4 times in 0.4 %
    assert figures["high"] == 0.75
    assert figures["verdict"] == "no-evidence"


def test_words_follow_the_ends_of_the_interval() -> None:
    labels = np.zeros(30, dtype=np.int64)
    groups = [str(i) for i in range(30)]
    right, wrong = np.eye(2)[[0] * 30], np.eye(2)[[1] * 10 + [0] * 20]
    assert PairedBootstrap()(right, wrong, labels, groups, "accuracy").figures["verdict"] == "helps"
    assert PairedBootstrap()(wrong, right, labels, groups, "accuracy").figures["verdict"] == "hurts"
    assert PairedBootstrap(factor=5.0)(right, wrong, labels, groups, "accuracy").figures["verdict"] == "no-evidence"
    # the same rows as two groups are hardly evidence
    two = ["a"] * 10 + ["b"] * 20
    assert PairedBootstrap()(right, wrong, labels, two, "accuracy").figures["verdict"] == "no-evidence"


def test_five_rows_prove_nothing_and_six_may() -> None:
    for rows, word in ((1, "no-evidence"), (5, "no-evidence"), (6, "helps")):
        labels = np.zeros(rows, dtype=np.int64)
        right, wrong = np.eye(2)[[0] * rows], np.eye(2)[[1] * rows]
        found = PairedBootstrap()(right, wrong, labels, list("abcdef")[:rows], "accuracy")
        assert (found.figures["verdict"], found.figures["low"] > 0) == (word, word == "helps")
        assert ("too few" in found.sentence) is (rows < 6)


def test_settings_out_of_range_are_unfit() -> None:
    with pytest.raises(Unfit, match="level 1"):
        PairedBootstrap(level=1.0)
