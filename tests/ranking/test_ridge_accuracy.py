"""Ridge accuracy by normal equations in each fold, with the strength by the textbook's cross-validation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier

from headstart.core import Unfit
from headstart.numerics.moments import targets_of
from headstart.numerics.spectrum import ridge_cells
from headstart.ranking.estimators.ridge_accuracy import RidgeAccuracy
from headstart.ranking.estimators.ridge_probe import RidgeProbe
from headstart.testing.ranking_estimators import dealt, draw, score, seen

Array = np.ndarray[Any, Any]
PENALTIES = (1e-3, 0.1, 10.0)


def direct(f: Array, y: Array, folds: Array) -> Array:
    """(rows, columns) what full solves in the space of the features say; NaN where no fold scores a row."""
    out = np.full(y.shape, np.nan)
    for fold in set(folds[folds >= 0].tolist()):
        train, valid = folds != fold, folds == fold
        g, t = f[train] - f[train].mean(0), y[train] - y[train].mean(0)
        level, tried = (g**2).sum() / len(g), []
        for penalty in PENALTIES:
            gram = g.T @ g + penalty * level * np.eye(g.shape[1])
            hat = g @ np.linalg.solve(gram, g.T) + 1 / len(g)
            off = ((y[train] - hat @ y[train]) ** 2).sum() / (1 - np.trace(hat) / len(g)) ** 2
            tried.append((off, np.linalg.solve(gram, g.T @ t)))
        out[valid] = y[train].mean(0) + (f[valid] - f[train].mean(0)) @ min(tried, key=lambda one: one[0])[1]
    return out


@pytest.mark.parametrize("classes", [2, 5, 100])
@pytest.mark.parametrize(("rows", "width"), [(230, 9), (220, 220), (210, 260)])
def test_equals_full_solves(rows: int, width: int, classes: int) -> None:
    """Unbalanced, a column twice, a constant one, units far apart from 1, and rows in no fold."""
    f, y = draw(classes, rows, width, classes, apart=0.6)
    y[: rows // 3] = 0
    f[:, 1], f[:, 2] = f[:, 0], 7.0
    f = 1e3 * f + 50
    folds = dealt(y)
    folds[:4] = -1
    want = direct(f, targets_of(y, classes), folds)
    for _, valid, said in ridge_cells(f, y, classes, folds, PENALTIES):
        np.testing.assert_allclose(said, want[valid], rtol=0, atol=1e-8)
    given = RidgeAccuracy(penalties=PENALTIES)(seen(RidgeAccuracy(), f, y, classes, folds=folds))
    wrong = np.where(folds >= 0, want.argmax(axis=1) != y, np.nan)
    assert given.losses is not None
    np.testing.assert_array_equal(given.losses, wrong)
    assert given.value == 1 - np.nanmean(wrong)


def test_several_labels_are_said_from_a_half_on() -> None:
    f, _ = draw(4, 90, 10)
    hot = (np.stack([f[:, 0] > 0, f[:, 1] > 1, np.ones(90)], axis=1)).astype(np.int8)
    folds = np.arange(90) % 5
    given = RidgeAccuracy(penalties=PENALTIES)(seen(RidgeAccuracy(), f, hot, 3, "multi_label", folds=folds))
    wrong = ((direct(f, hot.astype(float), folds) >= 0.5) != (hot > 0)).mean(axis=1)
    assert given.losses is not None
    np.testing.assert_array_equal(given.losses, wrong)


def test_equals_the_classifier_of_scikit_learn() -> None:
    """Which regresses onto -1 and 1: of three classes and more, the same answers."""
    f, y = draw(5, 150, 12, 4, apart=0.5)
    folds, wrong = dealt(y), np.empty(150)
    for fold in range(5):
        train, valid = folds != fold, folds == fold
        level = ((f[train] - f[train].mean(0)) ** 2).sum() / train.sum()
        wrong[valid] = RidgeClassifier(alpha=0.3 * level).fit(f[train], y[train]).predict(f[valid]) != y[valid]
    given = RidgeAccuracy(penalties=(0.3,))(seen(RidgeAccuracy(), f, y, 4, folds=folds))
    assert given.losses is not None
    np.testing.assert_array_equal(given.losses, wrong)


def test_it_counts_what_the_probe_measures() -> None:
    """With two classes a row is wrong when the squared error of its two columns is above a half."""
    f, y = draw(6, 80, 7, 2, apart=0.4)
    errors, given = (method(seen(method, f, y, 2)).losses for method in (RidgeProbe(), RidgeAccuracy()))
    assert errors is not None
    assert given is not None
    np.testing.assert_array_equal(given, errors > 0.5)


def test_a_class_that_was_not_trained_on_is_never_said() -> None:
    f, y = np.array([[0.0], [0.1], [5.0], [5.1]]), np.array([0, 0, 1, 1])
    given = RidgeAccuracy()(seen(RidgeAccuracy(), f, y, 2, folds=np.array([0, 0, 1, 1])))
    assert given.losses is not None
    assert given.losses.tolist() == [1, 1, 1, 1]


def test_refusals() -> None:
    f, y = draw(3)
    with pytest.raises(Unfit, match="not all above 0"):
        RidgeAccuracy(penalties=(0.1, 0.0))
    with pytest.raises(Unfit, match="scored"):
        score(RidgeAccuracy(), f, y, folds=np.full(60, -1))
