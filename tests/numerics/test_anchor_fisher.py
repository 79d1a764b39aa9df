"""Anchor-Fisher moments: the information against automatic differentiation, and tasks against their halves."""

from __future__ import annotations

from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine

from headstart.core import TaskType, Unfit
from headstart.numerics import anchor_fisher
from headstart.numerics.anchor_fisher import anchor_fisher_moments, fisher_moment, task_similarities

Array = np.ndarray[Any, Any]


def test_the_moment_is_one_for_equal_weights_alone_and_knows_no_scale() -> None:
    chance = np.random.default_rng(0)
    for _ in range(20):
        f = chance.exponential(size=30) ** 3
        assert fisher_moment(f) > 1
        assert fisher_moment(1e-20 * f) == pytest.approx(fisher_moment(f))
    assert fisher_moment(np.full(7, 0.3)) == pytest.approx(1)
    assert fisher_moment(np.eye(8)[0]) == pytest.approx(8)
    assert fisher_moment(np.zeros(4)) == 1.0


@pytest.mark.parametrize("task", ["single_label", "multi_label", "regression"])
@pytest.mark.parametrize("anchor", [(16, 1, "relu"), (16, 2, "tanh")])
def test_the_information_is_the_expected_square_of_each_rows_gradient(
    task: TaskType, anchor: tuple[int, int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = np.random.default_rng(0)
    x = chance.standard_normal((12, 5))
    y, classes = {
        "single_label": (np.arange(12) % 3, 3),
        "multi_label": ((chance.random((12, 2)) < 0.5).astype(np.int8), 2),
        "regression": (chance.standard_normal(12), 0),
    }[task]
    heads = []
    made = anchor_fisher._head
    monkeypatch.setattr(anchor_fisher, "_head", lambda *given: heads.append(made(*given)) or heads[-1])
    found = anchor_fisher._fisher(x, y, classes, task, anchor, np.random.default_rng(5))

    again, (width, depth, activation) = np.random.default_rng(5), anchor
    sizes = [5, *[width] * depth]
    gain = np.sqrt(2.0) if activation == "relu" else 1.0
    drawn = [gain * again.standard_normal((a, b)) / np.sqrt(a) for a, b in pairwise(sizes)]
    order = again.permutation(12)
    weights = [torch.tensor(w, requires_grad=True) for w in drawn]
    wanted = np.zeros(len(found))
    for head, held in zip(heads, (order[6:], order[:6]), strict=True):
        for row in held:
            for probability, loss in losses(torch.tensor(x[row]), weights, activation, head, task):
                grads = torch.autograd.grad(loss, weights, retain_graph=True)
                wanted += probability * np.concatenate([g.numpy().ravel() ** 2 for g in grads])
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def losses(x: torch.Tensor, weights: list[torch.Tensor], activation: str, head: Any, task: str) -> Any:
    """Probability and loss of every label that the model may draw for one row."""
    for w in weights:
        x = torch.relu(x @ w) if activation == "relu" else torch.tanh(x @ w)
    out = torch.tensor(head.weight.astype(float)) @ x + torch.tensor(head.bias.astype(float))
    if task == "single_label":
        logs = torch.log_softmax(out, 0)
        yield from ((float(logs[c].detach().exp()), -logs[c]) for c in range(len(out)))
    elif task == "multi_label":
        for drawn in product((0.0, 1.0), repeat=len(out)):
            label = torch.tensor(drawn, dtype=torch.float64)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(out, label, reduction="sum")
            yield float((-loss).detach().exp()), loss
    else:  # a unit normal about the output: two points have its mean and variance
        yield from ((0.5, 0.5 * (out[0] - out[0].detach() - e) ** 2) for e in (-1.0, 1.0))


def halves() -> tuple[list[Array], list[str]]:
    """Vectors of both halves of seven tasks, in one space of 32 random directions."""
    chance = np.random.default_rng(0)
    digits, of = load_digits(return_X_y=True)
    tasks: dict[str, tuple[Array, Array, int, TaskType]] = {}
    for name, kept in (("0 or 1", (0, 1)), ("7, 8, 9", (7, 8, 9)), ("ten digits", tuple(range(10)))):
        here = np.isin(of, kept)
        tasks[name] = digits[here], np.searchsorted(kept, of[here]), len(kept), "single_label"
    for name, load, classes in (("wine", load_wine, 3), ("cancer", load_breast_cancer, 2)):
        x, y = load(return_X_y=True)
        tasks[name] = x, y, classes, "single_label"
    x, y = load_diabetes(return_X_y=True)
    tasks["diabetes"] = x, y, 0, "regression"
    tasks["noise"] = chance.standard_normal((300, 32)), chance.integers(3, size=300), 3, "single_label"
    vectors, names = [], []
    for name, (x, y, classes, task) in tasks.items():
        x = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-9)
        x = x @ np.random.default_rng(1).standard_normal((x.shape[1], 32)) / np.sqrt(x.shape[1])
        order = chance.permutation(len(x))[:300]
        for half in np.array_split(order, 2):
            vectors.append(anchor_fisher_moments(x[half], y[half], classes, task, seeds=(0, 1)))
            names.append(name)
    return vectors, names


def test_halves_of_a_task_are_nearer_than_other_tasks() -> None:
    vectors, names = halves()
    _, alike = task_similarities(vectors[0], np.vstack(vectors))
    same = np.array([a == b for a in names for b in names]).reshape(alike.shape)
    off = ~np.eye(len(names), dtype=bool)
    assert alike[same & off].mean() > alike[~same].mean() + 0.2
    first = (alike - 2 * np.eye(len(names))).argmax(axis=1)
    assert np.mean([names[i] == names[j] for i, j in enumerate(first)]) > 0.25  # one in thirteen by chance


def test_units_and_the_order_of_rows_and_classes_change_little_or_nothing() -> None:
    x, y = load_wine(return_X_y=True)
    one = anchor_fisher_moments(x, y, 3, "single_label", seeds=(0,))
    np.testing.assert_allclose(anchor_fisher_moments(100 * x + 7, y, 3, "single_label", seeds=(0,)), one, atol=1e-5)
    np.testing.assert_allclose(anchor_fisher_moments(x, 2 - y, 3, "single_label", seeds=(0,)), one, atol=1e-3)
    assert (one >= 0).all()


@pytest.mark.parametrize(
    ("x", "task"), [(np.ones((30, 4)), "single_label"), (np.eye(4), "single_label"), (np.eye(30), "tagging")]
)
def test_tasks_that_say_nothing_are_refused(x: Array, task: TaskType) -> None:
    with pytest.raises(Unfit, match="features that vary by"):
        anchor_fisher_moments(x, np.arange(len(x)) % 2, 2, task)
