"""Fisher merging on numbers done by hand."""

from __future__ import annotations

import pytest
import torch

from headstart.combination.matching.fisher import Fisher
from headstart.core import Passes, Unfit
from headstart.testing.combination_matching import any_context


def test_by_hand() -> None:
    passes = [Passes(squares=torch.tensor([1.0, 0.0])), Passes(squares=torch.tensor([3.0, 0.0]))]
    models = [torch.tensor([0.0, 0.0]), torch.tensor([4.0, 2.0])]
    out = Fisher(floor=1e-9)(any_context((2,)), torch.zeros(2), models, passes)
    torch.testing.assert_close(out, torch.tensor([3.0, 1.0]))  # nothing hangs on the second entry


def test_floor() -> None:
    with pytest.raises(Unfit):
        Fisher(floor=0.0)
