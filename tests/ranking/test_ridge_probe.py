"""Ridge probe against scikit-learn's ridge, fold by fold."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from headstart.core import Unfit
from headstart.numerics.moments import Moments, targets_of
from headstart.numerics.spectrum import Spectrum, fold_spectra
from headstart.ranking.estimators.ridge_probe import RidgeProbe
from headstart.testing.ranking_estimators import dealt, draw, score, seen


@pytest.mark.parametrize(("rows", "width"), [(90, 10), (30, 60)])
@pytest.mark.parametrize("task", ["single_label", "multi_label", "regression"])
def test_equals_scikit_learn_in_each_fold(rows: int, width: int, task: str) -> None:
    f, labels = draw(0, rows, width, apart=0.5)
    f += 30
    chance = np.random.default_rng(0)
    truth, classes = {
        "single_label": (labels, 3),
        "multi_label": ((chance.random((rows, 3)) < 0.4).astype(np.int8), 3),
        "regression": (1e4 + f[:, 0] + chance.standard_normal(rows), 0),
    }[task]
    folds, method = dealt(labels), RidgeProbe(penalties=(0.2,))
    given = method(seen(method, f, truth, classes, task, folds=folds))  # type: ignore[arg-type]  # a name above
    y = targets_of(truth, classes)
    want, naive = np.empty(rows), np.empty(rows)
    for fold in range(5):
        train, valid = folds != fold, folds == fold
        level = ((f[train] - f[train].mean(0)) ** 2).sum() / train.sum()
        peer = Ridge(alpha=0.2 * level).fit(f[train], y[train])
        want[valid] = ((y[valid] - peer.predict(f[valid]).reshape(-1, y.shape[1])) ** 2).sum(1)
        naive[valid] = ((y[valid] - y[train].mean(0)) ** 2).sum(1)
    assert given.losses is not None
    np.testing.assert_allclose(given.losses, want, rtol=1e-6, atol=1e-9)
    assert given.value == pytest.approx(1 - want.sum() / naive.sum(), rel=1e-8)


@pytest.mark.parametrize(("rows", "width"), [(40, 7), (20, 50)])
def test_cross_validation_is_the_textbook_formula(rows: int, width: int) -> None:
    f, labels = draw(1, rows, width, apart=0.5)
    g, y = f - f.mean(0), targets_of(labels, 3)
    y0 = y - y.mean(0)
    spectrum = Spectrum.of_kernel(g @ g.T, y0, width)
    for penalty in (0.5, 20.0):
        hat = g @ np.linalg.solve(g.T @ g + penalty * np.eye(width), g.T) + 1 / rows
        want = ((y - hat @ y) ** 2).sum() / rows / (1 - np.trace(hat) / rows) ** 2
        assert spectrum.cross_validated(np.array([penalty]))[0] == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize(("rows", "width", "twice"), [(40, 7, 0), (20, 50, 0), (24, 24, 0), (26, 22, 3), (20, 50, 4)])
def test_rows_left_out_are_those_of_fits_without_them(rows: int, width: int, twice: int) -> None:
    f, labels = draw(1, rows, width, apart=0.5)
    f += 30
    f[:twice], labels[:twice] = f[rows - twice :], labels[rows - twice :]
    y, penalties = targets_of(labels, 3), np.array([1e-3, 0.5, 20.0])
    want = np.zeros(3)
    for at, penalty in enumerate(penalties):
        for row in range(rows):
            others = np.arange(rows) != row
            peer = Ridge(alpha=penalty, solver="svd").fit(f[others], y[others])
            want[at] += ((y[row] - peer.predict(f[[row]])[0]) ** 2).sum()
    g, y0 = f - f.mean(0), y - y.mean(0)
    for spectrum in (Spectrum.of_kernel(g @ g.T, y0, width), Spectrum.of_moments(Moments.of(f, labels, 3))):
        np.testing.assert_allclose(spectrum.left_out(penalties, f, y), want, rtol=1e-6)


def test_rows_that_come_twice_do_not_choose_the_least_penalty() -> None:
    """Generalised cross-validation does, with nearly as many features as rows, and then held-out rows are far off."""
    f, y = draw(5, 60, 58, apart=0.4)
    f[:3], y[:3] = f[3:6], y[3:6]
    folds = dealt(y)
    told = {p: score(RidgeProbe(penalties=(p,)), f, y, folds=folds) for p in (1e-6, 0.1, 1.0, 10.0)}
    assert told[1e-6] < 0 < max(told.values())
    chosen = score(RidgeProbe(penalties=tuple(told)), f, y, folds=folds)
    assert chosen > 0.8 * max(told.values())
    fooled = 0
    for train, _, spectrum, _ in fold_spectra(f, y, 3, folds):
        penalties = np.array(tuple(told)) * spectrum.level
        fooled += spectrum.cross_validated(penalties).argmin() == 0
        assert spectrum.best(penalties, f, targets_of(y, 3), train) > penalties[0]
    assert fooled > 0


def test_an_endless_penalty_says_the_mean() -> None:
    f, y = draw(2)
    assert score(RidgeProbe(penalties=(1e14,)), f, y) == pytest.approx(0.0, abs=1e-9)


def test_noise_costs_little() -> None:
    y = np.arange(120) % 4
    for width in (32, 256, 1024):
        value = score(RidgeProbe(), np.random.default_rng(width).standard_normal((120, width)), y, 4)
        assert -0.15 < value < 0.05


def test_rows_in_no_fold_are_trained_on_and_not_scored() -> None:
    f, y = draw(3)
    folds = np.where(np.arange(60) < 12, 0, -1)
    given = RidgeProbe()(seen(RidgeProbe(), f, y, folds=folds))
    assert given.losses is not None
    assert np.isnan(given.losses[12:]).all()
    assert given.value > 0.3
    with pytest.raises(Unfit, match="scored"):
        RidgeProbe()(seen(RidgeProbe(), f, y, folds=np.full(60, -1)))
