"""Code length by scikit-learn's logistic regression at one strength, and its limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from headstart.core import Unfit
from headstart.ranking.estimators.code_length import CodeLength
from headstart.ranking.estimators.logistic_probe import LogisticProbe
from headstart.testing.ranking_estimators import draw, falling, score, translation, zero_columns

Array = np.ndarray[Any, Any]


def test_equals_blocks_told_by_scikit_learn() -> None:
    f, y = draw(0, 64, 5, 3, apart=0.8)
    nats = [np.log(3)] * 8
    for a, b in ((8, 16), (16, 32), (32, 64)):
        scale = StandardScaler().fit(f[:a])
        fit = LogisticRegression(C=0.1, tol=1e-10, max_iter=9999).fit(scale.transform(f[:a]), y[:a])
        p = fit.predict_proba(scale.transform(f[a:b]))[np.arange(b - a), y[a:b]]
        nats += list(-np.log((a * p + 1) / (a + 3)))
    made = CodeLength(ends=(0.125, 0.25, 0.5), strengths=(0.1,))
    assert score(made, f, y) == pytest.approx(-np.mean(nats), rel=1e-4)


def test_between_nothing_and_everything() -> None:
    f, y = draw(1, 240, 6, 4, apart=6.0)
    assert -0.3 < score(CodeLength(), f, y, 4) < 0
    noise = np.random.default_rng(0).standard_normal((240, 40))
    assert score(CodeLength(), noise, y, 4) == pytest.approx(-np.log(4), abs=0.15)


def test_it_counts_how_soon_a_probe_is_good() -> None:
    """Both tell the classes in the end; the one with many idle dimensions needs more rows for it."""
    f, y = draw(2, 400, 4, 2, apart=1.2)
    wide = np.hstack([f, np.random.default_rng(0).standard_normal((400, 100))])
    slow = score(CodeLength(), f, y, 2) - score(CodeLength(), wide, y, 2)
    assert slow > score(LogisticProbe(), f, y, 2) - score(LogisticProbe(), wide, y, 2) > 0


def test_a_feature_far_from_zero_is_not_taken_for_constant_by_a_few_rows() -> None:
    """The law of this seed failed: of the first four rows some differ by little in one feature, and that was dropped
    once it was moved away from zero."""
    translation(CodeLength(), 429491)


def test_idle_columns_do_not_decide_which_strength_is_chosen() -> None:
    """The law of this seed failed: more columns than rows led to the optimum by other axes, and to another choice."""
    zero_columns(CodeLength(), 554)


def test_ends_must_rise() -> None:
    with pytest.raises(Unfit, match="rise"):
        CodeLength(ends=(0.5, 0.25))


def test_several_labels_are_told_one_by_one() -> None:
    f, y = draw(3, 64, 5, 3, apart=0.8)
    hot = np.eye(3, dtype=np.int8)[y] | (f[:, :3] > 0)
    nats = [np.full(3, np.log(2))] * 16
    for a, b in ((16, 32), (32, 64)):
        scale = StandardScaler().fit(f[:a])
        told = []
        for c in range(3):
            fit = LogisticRegression(C=0.1, tol=1e-10, max_iter=9999).fit(scale.transform(f[:a]), hot[:a, c])
            told.append(fit.predict_proba(scale.transform(f[a:b]))[np.arange(b - a), hot[a:b, c]])
        nats += list(-np.log((a * np.stack(told, axis=1) + 1) / (a + 2)))
    made = CodeLength(ends=(0.25, 0.5), strengths=(0.1,))
    assert score(made, f, hot, 3, task="multi_label") == pytest.approx(-np.mean(nats), rel=1e-4)


def numbers(seed: int, rows: int, width: int = 5, noise: float = 0.5) -> tuple[Array, Array]:
    chance = np.random.default_rng(seed)
    f = chance.standard_normal((rows, width))
    return f, 40 + 7 * (f @ chance.standard_normal(width) / width**0.5 + noise * chance.standard_normal(rows))


def nats(features: Array, values: Array, **settings: Any) -> float:
    return -score(CodeLength(**settings), features, values, 0, task="regression")


def test_numbers_equal_densities_about_scikit_learns_ridge() -> None:
    f, y = numbers(0, 64)
    z = (y - y.mean()) / y.std()
    densities, errors = [norm.logpdf(v) for v in z[:8]], [v**2 for v in z[:8]]
    for before, a, b in ((0, 8, 16), (8, 16, 32), (16, 32, 64)):
        fit = make_pipeline(StandardScaler(), Ridge(alpha=10.0)).fit(f[:a], z[:a])
        width = ((sum(errors[before:a]) + 1) / (a - before + 1)) ** 0.5
        for x, v in zip(f[a:b], z[a:b], strict=True):
            centre = a / (a + 1) * fit.predict(x[None])[0]
            densities.append(norm.logpdf(v, centre, width))
            errors.append((v - centre) ** 2)
    made = nats(f, y, ends=(0.125, 0.25, 0.5), strengths=(0.1,))
    assert made == pytest.approx(-np.mean(densities), rel=1e-5)


def test_of_numbers_nothing_costs_the_label_alone_and_everything_less_the_more_rows_there_are() -> None:
    _, y = numbers(1, 400)
    alone = 0.5 * np.log(2 * np.pi) + 0.5
    assert nats(np.zeros((400, 3)), y) == pytest.approx(alone, abs=0.04)
    noise = np.random.default_rng(0).standard_normal((400, 1000))
    assert alone - 0.02 < nats(noise, y) < alone + 0.1
    perfect = [nats(*numbers(2, rows, noise=0.0)) for rows in (100, 400, 1600)]
    assert perfect[2] < perfect[1] < perfect[0] < 0.8
    assert perfect[2] < -0.5
    assert nats(np.zeros((9, 2)), np.full(9, 3.0)) < alone, "a value that never varies"


def test_units_and_places_of_features_and_numbers_change_nothing() -> None:
    f, y = numbers(3, 60)
    want = nats(f, y)
    units = 10 ** np.random.default_rng(0).uniform(-2, 2, 5)
    for features, values in ((f * units, y), (f + 100, y), (f, 1e-3 * y + 9), (np.hstack([f, np.zeros((60, 90))]), y)):
        assert nats(features, values) == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("rows", [100, 300])
def test_of_numbers_noise_of_any_width_is_behind_signal_and_shuffled_ones_are_noise(rows: int) -> None:
    f, y = numbers(4, rows, 32, noise=1.0)
    chance = np.random.default_rng(rows)
    informed = nats(f, y)
    for features in (*(chance.standard_normal((rows, w)) for w in (64, 512, 4096)), falling(chance, rows, 384)):
        assert nats(features, y) > informed
    shuffled = np.mean([nats(f, chance.permutation(y)) for _ in range(5)])
    assert shuffled == pytest.approx(0.5 * np.log(2 * np.pi) + 0.5, abs=0.15)
    half = y.copy()
    half[::2] = chance.permutation(y[::2])
    assert informed < nats(f, half) < shuffled
