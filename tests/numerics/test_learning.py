"""Slopes, objectives and scores of merges that learn, against differences and hand counts."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch

from headstart.core import Unfit
from headstart.numerics import learning
from headstart.testing.combination_learning import LinearTasks


def test_slopes_are_differences() -> None:
    """The inner products of gradients and changes are what the objective does when a share moves."""
    view = LinearTasks(0)
    batches = [list(range(10)), list(range(5, 30))]
    shares = np.random.default_rng(0).normal(size=(2, 3))

    def value(at: np.ndarray) -> float:
        return learning.gradient(view, view.shared(at), batches, lambda _, x: learning.entropy(x, "softmax"))[0]

    _, found = learning.gradient(view, view.shared(shares), batches, lambda _, x: learning.entropy(x, "softmax"))
    slopes = learning.slopes(view, found)
    for place in np.ndindex(2, 3):
        step = np.zeros((2, 3))
        step[place] = 1e-2
        difference = (value(shares + step) - value(shares - step)) / 2e-2
        assert slopes[place] == pytest.approx(difference, abs=2e-3)


def test_every_row_comes_once_before_any_comes_again() -> None:
    found = [r for batch in islice(learning.draws(7, 3, 0), 7) for r in batch]
    assert [sorted(found[at : at + 7]) for at in (0, 7, 14)] == [list(range(7))] * 3
    assert [len(b) for b in islice(learning.draws(2, 5, 0), 3)] == [2, 2, 2]


def test_objectives() -> None:
    logits = torch.tensor([[2.0, 0.0]])
    p = torch.sigmoid(torch.tensor(2.0))
    wanted = -(p * p.log() + (1 - p) * (1 - p).log())
    assert float(learning.entropy(logits, "softmax")) == pytest.approx(float(wanted), rel=1e-5)
    several = (wanted + torch.tensor(2.0).log()) / 2
    assert float(learning.entropy(logits, "sigmoid")) == pytest.approx(float(several), rel=1e-5)
    with pytest.raises(Unfit):
        learning.entropy(logits, "identity")
    assert float(learning.loss(torch.tensor([[2.0]]), torch.tensor([5.0]), "identity")) == 9.0


def test_score_counts() -> None:
    view = LinearTasks(1, tasks=1)
    table = learning.outputs(view, view.shared(np.zeros((2, 3))), 0)
    right = (table.argmax(1) == view.labels(0, range(60))).float().mean()
    assert learning.score(view, view.shared(np.zeros((2, 3)))) == pytest.approx(float(right))
