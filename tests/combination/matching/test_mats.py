"""MaTS against systems that are written out whole."""

from __future__ import annotations

import pytest
import torch

from headstart.combination.matching.mats import MaTS
from headstart.combination.matching.regmean import RegMean
from headstart.core import Unfit
from headstart.testing.combination_matching import any_context, drawn


def test_no_step_is_task_arithmetic() -> None:
    base, tuned, passes = drawn(0)
    out = MaTS(steps=0, start=0.3)(any_context(), base, tuned, passes)
    torch.testing.assert_close(out, base + 0.3 * sum(t - base for t in tuned))


def test_kronecker_against_the_whole_matrix() -> None:
    """The operator on all 30 entries, solved directly."""
    base, tuned, passes = drawn(1)
    whole, wanted = torch.zeros(30, 30, dtype=torch.float64), torch.zeros(30, dtype=torch.float64)
    for one, p in zip(tuned, passes, strict=True):
        assert p.inputs is not None
        assert p.gradients is not None
        both = torch.kron(p.gradients, p.inputs)  # of entries in row-major order
        whole += both
        wanted += both @ (one - base).double().flatten()
    exact = base + torch.linalg.solve(whole, wanted).view(6, 5).float()
    out = MaTS(steps=500)(any_context(), base, tuned, passes)
    torch.testing.assert_close(out, exact, rtol=1e-4, atol=1e-5)


def test_inputs_alone_are_regmean() -> None:
    base, tuned, passes = drawn(2)
    out = MaTS(objective="inputs", steps=200)(any_context(), base, tuned, passes)
    torch.testing.assert_close(out, RegMean(shrink=1.0)(any_context(), base, tuned, passes), rtol=1e-5, atol=1e-5)


def test_fisher_is_a_mean_by_squares() -> None:
    base, tuned, passes = drawn(3)
    squares = [p.squares for p in passes if p.squares is not None]
    exact = sum(s * t for s, t in zip(squares, tuned, strict=True)) / sum(squares)
    out = MaTS(objective="fisher", steps=500)(any_context(), base, tuned, passes)
    torch.testing.assert_close(out, exact, rtol=1e-3, atol=1e-4)


def test_more_steps_are_nearer() -> None:
    base, tuned, passes = drawn(4)
    end = MaTS(steps=2000)(any_context(), base, tuned, passes)
    far = [float((MaTS(steps=s)(any_context(), base, tuned, passes) - end).norm()) for s in (0, 5, 20, 100)]
    assert far == sorted(far, reverse=True)


def test_settings() -> None:
    with pytest.raises(Unfit):
        MaTS(objective="nothing")  # type: ignore[arg-type]
    with pytest.raises(Unfit):
        MaTS(steps=-1)
