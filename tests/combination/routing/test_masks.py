"""EMR-Merging and TALL-masks: by hand, against plain loops, and where they are exact."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from headstart.combination.routing.emr import Emr
from headstart.combination.routing.tall_mask import TallMask
from headstart.core import Routed, Steps, Unfit
from headstart.numerics.delta import Dense, Picked, bytes_of, dense
from headstart.testing.combination_routing import RoutedTasks, expert_of

NONE = Steps(horizon=0)


class Given(RoutedTasks):
    """Models whose changes are given, one row a model."""

    def __init__(self, changes: list[list[float]]) -> None:
        super().__init__(0, models=len(changes))
        self.tensors, self.tasks = ["bias"], []
        self._base = {"bias": torch.zeros(len(changes[0]))}
        self._changes = [{"bias": torch.tensor(c)} for c in changes]


def found(method: Any, changes: list[list[float]]) -> list[list[float]]:
    view = Given(changes)
    routed = method(view, NONE)
    return [expert_of(view, routed, m)["bias"].tolist() for m in range(len(changes))]


@pytest.mark.parametrize("method", [Emr(), TallMask()])
def test_of_one_model_everything_is_kept(method: Any) -> None:
    view = RoutedTasks(0, models=1)
    for name, weight in expert_of(view, method(view, NONE), 0).items():
        torch.testing.assert_close(weight, view.base(name) + view.changes(name)[0])


def test_equal_models_are_elected_as_they_are() -> None:
    one = [1.0, -2.0, 0.5]
    for got in found(Emr(), [one, one]):
        assert got == pytest.approx(one)


def test_emr_by_hand() -> None:
    # sums 1, -1, 4: elected 2 (of the first), -4 (of the second), 3 (the larger)
    first, second = found(Emr(), [[2.0, 3.0, 1.0], [-1.0, -4.0, 3.0]])
    assert first == pytest.approx([2 * 6 / 5, 0, 3 * 6 / 5])  # sizes 2 + 3 + 1 of its own, 2 + 3 of what it picked
    assert second == pytest.approx([0, -4 * 8 / 7, 3 * 8 / 7])


def test_tall_mask_by_hand() -> None:
    # sums 1, -1, 4; of the first the others are -1, -4, 3 and of the second 2, 3, 1
    first, second = found(TallMask(strictness=0.5), [[2.0, 3.0, 1.0], [-1.0, -4.0, 3.0]])
    assert first == [1, -1, 0]
    assert second == [0, -1, 4]  # one half of 2 is not less than 1


def test_emr_counts_every_tensor_alike() -> None:
    """The factor by plain loops over two tensors of unlike sizes."""
    view = RoutedTasks(1)
    routed = Emr()(view, NONE)
    for model in range(3):
        whole = left = 0.0
        for name in view.tensors:
            own = view.changes(name)[model].double().flatten().tolist()
            elected = dense(routed.common[name]).double().flatten().tolist()
            whole += sum(abs(o) for o in own) / len(own)
            left += sum(abs(e) for o, e in zip(own, elected, strict=True) if o * e > 0) / len(own)
        kept = routed.experts[model]["weight"]
        assert isinstance(kept, Picked)
        assert kept.scale == pytest.approx(whole / left, rel=1e-5)


@pytest.mark.parametrize("method", [Emr(), TallMask()])
def test_a_task_takes_a_bit_a_number(method: Any) -> None:
    routed: Routed = method(RoutedTasks(2), NONE)
    assert all(isinstance(form, Dense) for form in routed.common.values())
    assert sum(bytes_of(f) for f in routed.common.values()) == 4 * (24 + 3)
    for expert in routed.experts:
        assert sum(bytes_of(f) for f in expert.values()) == 24 // 8 + 1


def test_settings_out_of_range() -> None:
    with pytest.raises(Unfit, match="cannot be"):
        Emr(steps=-1)
    with pytest.raises(Unfit, match="cannot be"):
        TallMask(strictness=-0.1)
