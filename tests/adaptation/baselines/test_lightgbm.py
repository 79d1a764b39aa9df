"""Boosted trees: against LightGBM itself, and against a line where the truth has steps."""

from __future__ import annotations

from pathlib import Path

import lightgbm
import numpy as np
import pytest
from sklearn.metrics import r2_score

from headstart.adaptation.baselines.column_linear import ColumnLinear
from headstart.adaptation.baselines.lightgbm import LightGBM
from headstart.core import Steps, Unfit
from headstart.testing.adaptation_baselines import fit_view

HOUSES = Path(__file__).parents[4] / "shared/data/california_housing"


def test_equals_lightgbm_with_the_same_settings() -> None:
    chance = np.random.default_rng(0)
    x = chance.normal(size=(120, 2))
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    view = fit_view(y, columns={"a": x[:, 0], "b": x[:, 1]}, valid=range(100, 120))
    found = LightGBM(rounds=5)(view, None, Steps()).predictions[:, 1]
    settings = {"objective": "binary", "min_data_in_leaf": 5, "min_data_in_bin": 1, "verbose": -1, "num_threads": 1}
    wanted = lightgbm.train(settings, lightgbm.Dataset(x[:100], y[:100], params=settings), num_boost_round=5).predict(
        x[100:]
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_early_stopping_ends_before_noise_is_learnt() -> None:
    chance = np.random.default_rng(1)
    x, y = chance.normal(size=400), chance.permutation(np.arange(400) % 2)
    made = LightGBM()(fit_view(y, columns={"x": x}, valid=range(350, 400)), None, Steps(early_stop=True))
    assert made.facts["steps"] < 60
    assert made.fraction == made.facts["steps"] / 500


def test_the_refit_runs_the_fraction_of_the_horizon() -> None:
    view = fit_view(np.arange(40) % 2, columns={"x": np.arange(40.0)}, valid=[0, 1])
    assert LightGBM()(view, None, Steps(horizon=50, until=0.2)).facts == {"steps": 10, "horizon": 50}


@pytest.mark.skipif(not HOUSES.exists(), reason="the shared data sets are not beside the repository")
def test_better_than_a_line_on_houses() -> None:
    import pyarrow.parquet as pq

    rows = pq.read_table(HOUSES / "train.parquet")
    rows = rows.take(np.random.default_rng(0).permutation(rows.num_rows)[:1500])
    y = rows["label"].to_numpy()
    view = fit_view(y, columns=rows.drop_columns(["label"]), valid=range(1000, 1500), task="regression")
    trees, line = (r2_score(y[1000:], m(view, None, Steps()).predictions) for m in (LightGBM(), ColumnLinear()))
    assert trees > line > 0.4


def test_settings_out_of_range() -> None:
    with pytest.raises(Unfit, match="learning_rate"):
        LightGBM(learning_rate=0)
