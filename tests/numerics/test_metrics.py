"""Metrics equal scikit-learn's, SciPy's and seqeval's, alone and resampled."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import seqeval.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from headstart.core import METRICS, Unfit
from headstart.numerics.metrics import bounds, confusion, draws, row_losses, value

SINGLE = {
    "macro_f1": lambda y, p: sk.f1_score(y, p.argmax(1), average="macro", labels=np.unique(y), zero_division=0),
    "accuracy": lambda y, p: sk.accuracy_score(y, p.argmax(1)),
    "balanced_accuracy": lambda y, p: sk.balanced_accuracy_score(y, p.argmax(1)),
    "micro_f1": lambda y, p: sk.f1_score(y, p.argmax(1), average="micro"),
    "log_loss": lambda y, p: sk.log_loss(y, p, labels=np.arange(p.shape[1])),
    "auroc": lambda y, p: (
        sk.roc_auc_score(y, p[:, 1]) if p.shape[1] == 2 else sk.roc_auc_score(y, p, multi_class="ovr", average="macro")
    ),
}
NUMBERS = {
    "rmse": lambda y, p: sk.root_mean_squared_error(y, p[:, 0]),
    "mae": lambda y, p: sk.mean_absolute_error(y, p[:, 0]),
    "r2": lambda y, p: sk.r2_score(y, p[:, 0]),
    "spearman": lambda y, p: stats.spearmanr(y, p[:, 0]).statistic,
}
MULTI = {
    "macro_f1": lambda y, p: sk.f1_score(y, p >= 0.5, average="macro", zero_division=0),
    "micro_f1": lambda y, p: sk.f1_score(y, p >= 0.5, average="micro", zero_division=0),
}


def single(seed: int, classes: int, rows: int = 60):
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(classes), rng.integers(0, classes, rows - classes)])
    p = rng.dirichlet(np.ones(classes), rows).round(2)  # rounded: ties
    p[np.arange(rows), y] += 0.5
    return y, p / p.sum(1, keepdims=True)


def numbers(seed: int, rows: int = 50):
    rng = np.random.default_rng(seed)
    y = rng.normal(size=rows).round(1)
    return y, (y + rng.normal(size=rows)).round(1)[:, None]


def multi(seed: int, rows: int = 40, classes: int = 4):
    rng = np.random.default_rng(seed)
    y = (rng.random((rows, classes)) < 0.4).astype(np.int8)
    y[0] = 1
    return y, np.clip(0.4 * y + 0.7 * rng.random((rows, classes)), 0, 1)


def case(kind: str, seed: int):
    if kind == "numbers":
        return NUMBERS, *numbers(seed)
    if kind == "multi":
        return MULTI, *multi(seed)
    return SINGLE, *single(seed, int(kind))


@pytest.mark.parametrize("kind", ["2", "5", "numbers", "multi"])
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_equals_the_reference_libraries_alone_and_resampled(kind: str, seed: int) -> None:
    reference, y, p = case(kind, seed)
    rng = np.random.default_rng(seed)
    again = np.concatenate([rng.integers(0, len(y), (3, len(y))), np.tile(np.arange(len(y)), (3, 1))], axis=1)
    weights = np.stack([np.bincount(rows, minlength=len(y)) for rows in again])  # every class is in every draw
    for name, of in reference.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert value(name, y, p) == pytest.approx(of(y, p), abs=1e-12), name
            wanted = [of(y[rows], p[rows]) for rows in again]
        np.testing.assert_allclose(draws(name, y, p, weights), wanted, atol=1e-12, err_msg=name)


def test_every_metric_of_the_core_is_known_here() -> None:
    assert set(SINGLE) | set(NUMBERS) | set(MULTI) | {"span_f1"} == set(METRICS)
    for name in METRICS:
        assert bounds(name)[0] < bounds(name)[1]


def test_span_f1_is_seqevals() -> None:
    y = [["B-PER", "I-PER", "O"], ["O", "B-LOC", "O"], ["B-ORG"], ["O"]]
    p = [["B-PER", "I-PER", "O"], ["B-LOC", "O", "O"], ["B-PER"], ["O"]]
    assert value("span_f1", np.array(y, dtype=object), p) == pytest.approx(seqeval.metrics.f1_score(y, p))
    got = draws("span_f1", np.array(y, dtype=object), p, np.array([[2, 1, 0, 3], [0, 0, 0, 4]]))
    assert got[0] == pytest.approx(seqeval.metrics.f1_score([y[0], y[0], y[1]], [p[0], p[0], p[1]]))
    assert got[1] == 0  # no span anywhere: 0/0


def test_macro_f1_averages_over_the_classes_of_the_whole_test() -> None:
    y, p = np.array([0, 0, 1]), np.eye(3)[[0, 0, 2]]
    # class 0 is right, class 1 is missed, class 2 is not in the test though it was predicted
    assert value("macro_f1", y, p) == 0.5
    assert value("macro_f1", y, p, classes=3) == pytest.approx(1 / 3)
    # a draw without class 1 still counts it, as 0
    assert draws("macro_f1", y, p, np.array([[3, 0, 0]])).tolist() == [0.5]
    assert value("macro_f1", y[:2], p[:2], classes=[0, 1]) == 0.5


@pytest.mark.parametrize("name", [*SINGLE])
def test_one_class_is_finite(name: str) -> None:
    assert np.isfinite(value(name, np.zeros(4, dtype=np.int64), np.full((4, 3), 1 / 3)))
    assert np.isfinite(value(name, np.zeros(1, dtype=np.int64), np.full((1, 1), 1.0)))


def test_constant_numbers_are_finite_and_as_in_scikit_learn() -> None:
    y = np.full(5, 3.3)
    assert value("spearman", y, y[:, None]) == 0
    assert value("r2", y, y[:, None]) == 1
    assert value("r2", y, y[:, None] + 1) == 0
    assert value("r2", np.array([0.1, 0.7]), np.array([[0.1], [0.7]])) == 1


def test_a_certain_and_wrong_prediction_costs_a_finite_amount() -> None:
    y, p = np.array([0, 1]), np.array([[0.0, 1.0], [0.0, 1.0]])
    assert value("log_loss", y, p) == pytest.approx(sk.log_loss(y, p))
    assert row_losses("log_loss", y, p)[0] > row_losses("log_loss", y, p)[1]


def test_confusion_is_scikit_learns() -> None:
    y, p = single(3, 4)
    np.testing.assert_array_equal(confusion(y, p, 4), sk.confusion_matrix(y, p.argmax(1)))


def test_no_rows_is_said() -> None:
    with pytest.raises(Unfit, match="no rows"):
        value("accuracy", np.zeros(0, dtype=np.int64), np.zeros((0, 2)))
