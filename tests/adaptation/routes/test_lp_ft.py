"""LP-FT: the claim of the paper on a toy: from a probe, features drift less than from a head that knows nothing."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from headstart.adaptation.routes.full_finetune import FullFinetune
from headstart.adaptation.routes.lp_ft import LpFt
from headstart.core import Steps, Unfit
from headstart.execution.fit import features
from headstart.numerics.artifacts import Model
from headstart.testing.adaptation_routes import MemoryView, draw, run


def drift(view: MemoryView, model: object) -> float:
    assert isinstance(model, Model)
    encoder = copy.deepcopy(view.source)
    encoder.module.load_state_dict(dict(model.tensors))
    return float(np.linalg.norm(features(encoder, view.train.inputs) - view.train.features))


def test_features_drift_less_than_from_a_head_that_knows_nothing() -> None:
    steps = Steps(horizon=40)
    for seed in range(3):
        view = draw(seed)
        probe_first = run(LpFt(learning_rate=1e-3), view, steps)
        unprepared = run(FullFinetune(learning_rate=1e-3, head_rate=1.0), view, steps)
        assert drift(view, probe_first.artifact) < drift(view, unprepared.artifact)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(Unfit, match="above 0"):
        LpFt(learning_rate=0.0)
