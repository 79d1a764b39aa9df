"""Full fine-tuning: the first step by hand (AdamW moves a weight by its rate), and its settings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from headstart.adaptation.routes.full_finetune import FullFinetune
from headstart.core import Steps, Unfit
from headstart.numerics.artifacts import Model
from headstart.testing.adaptation_routes import draw, run


def test_the_head_starts_at_the_prior() -> None:
    view = draw(0)
    uneven = replace(view, train=view.train.take(range(20)))
    shares = np.bincount(uneven.train.labels, minlength=3) / 20
    p = run(FullFinetune(), uneven, Steps(horizon=0)).predictions
    np.testing.assert_allclose(p, np.tile(shares, (len(view.valid), 1)), atol=1e-6)


def test_a_model_holds_every_tensor_by_name_and_all_weights_moved() -> None:
    view = draw(0)
    model = run(FullFinetune(), view, Steps(horizon=5)).artifact
    assert isinstance(model, Model)
    before = view.source.module.state_dict()
    assert list(model.tensors) == list(before)
    for name, p in view.source.module.named_parameters():
        assert not torch.equal(model.tensors[name], p), name


def test_numbers_come_back_in_their_own_unit() -> None:
    view = draw(0, "regression", rows=120)
    fitted = run(FullFinetune(learning_rate=3e-3), view, Steps(horizon=200))
    error = np.sqrt(((fitted.predictions[:, 0] - view.valid.labels) ** 2).mean())
    assert error < 0.5 * view.valid.labels.std()


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(Unfit, match="decay"):
        FullFinetune(layer_decay=1.5)
