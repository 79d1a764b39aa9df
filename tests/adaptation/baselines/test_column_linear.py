"""Linear models on columns against scikit-learn's pipeline."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from headstart.adaptation.baselines.column_linear import ColumnLinear
from headstart.core import Steps, Unfit
from headstart.testing.adaptation_baselines import fit_view


def test_equals_scaled_logistic_regression() -> None:
    wine = load_wine(as_frame=True)
    order = np.random.default_rng(0).permutation(len(wine.target))
    columns = {name: wine.data[name].to_numpy()[order] for name in wine.data}
    labels, held = wine.target.to_numpy()[order], range(120, 178)
    made = ColumnLinear(strengths=(1.0,))(fit_view(labels, columns=columns, valid=held), None, Steps())
    x = np.stack(list(columns.values()), axis=1)
    wanted = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-8, max_iter=10_000)).fit(x[:120], labels[:120])
    np.testing.assert_allclose(made.predictions, wanted.predict_proba(x[120:]), atol=0.01)  # solvers stop early


def test_finds_a_line() -> None:
    x = np.linspace(0, 1, 40)
    view = fit_view(3 * x + 7, columns={"x": x}, valid=range(0, 40, 4), task="regression")
    np.testing.assert_allclose(ColumnLinear()(view, None, Steps()).predictions[:, 0], 3 * x[::4] + 7, atol=0.01)


def test_settings_out_of_range() -> None:
    with pytest.raises(Unfit, match="levels 0"):
        ColumnLinear(levels=0)
