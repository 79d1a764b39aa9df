"""Logistic probe against scikit-learn's logistic regression at a fixed strength."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from headstart.ranking.estimators.logistic_probe import LogisticProbe
from headstart.testing.ranking_estimators import dealt, draw, score, seen


@pytest.mark.parametrize(("rows", "width"), [(60, 6), (24, 40)])
def test_equals_scikit_learn_in_each_fold(rows: int, width: int) -> None:
    f, y = draw(0, rows, width, apart=0.6)
    folds, method = dealt(y, 3), LogisticProbe(strengths=(0.05,))
    given = method(seen(method, f, y, folds=folds))
    assert given.losses is not None
    for fold in range(3):
        train, valid = folds != fold, folds == fold
        z = (f - f[train].mean(0)) / f[train].std(0)
        peer = LogisticRegression(C=0.05, tol=1e-10, max_iter=5000).fit(z[train], y[train])
        want = -peer.predict_log_proba(z[valid])[np.arange(valid.sum()), y[valid]]
        floor = np.log(2 + train.sum())
        np.testing.assert_allclose(given.losses[valid], np.minimum(want, floor), rtol=1e-3, atol=1e-4)  # two optimisers


def test_several_labels_are_averaged() -> None:
    f, y = draw(1, 30, 5, 2)
    hot, method = np.eye(2, dtype=np.int8)[y], LogisticProbe(strengths=(0.1,))
    given = method(seen(method, f, hot, 2, "multi_label"))
    assert given.losses is not None
    assert -np.log(2) < given.value < 0


def test_labels_that_nothing_tells_cost_their_entropy() -> None:
    y = np.arange(80) % 4
    value = score(LogisticProbe(), np.random.default_rng(0).standard_normal((80, 40)), y, 4)
    assert -np.log(4) - 0.15 < value < -np.log(4) + 0.1
