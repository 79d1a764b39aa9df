"""The linear probe: by hand on two clusters, and its settings."""

from __future__ import annotations

import pytest

from headstart.adaptation.routes.linear_probe import LinearProbe
from headstart.core import Steps, Unfit
from headstart.testing.adaptation_routes import draw, run


def test_one_strength_is_taken_as_it_is() -> None:
    fitted = run(LinearProbe(strengths=(0.5,)), draw(0))
    assert fitted.facts["strength"] == 0.5
    assert fitted.state is None


def test_the_inner_losses_are_told_and_the_least_is_chosen() -> None:
    facts = run(LinearProbe(), draw(0)).facts
    least = min(loss for _, loss in facts["inner_losses"])
    assert dict(facts["inner_losses"])[facts["strength"]] <= least * 1.002  # equal within the noise of the optimum


def test_steps_change_nothing() -> None:
    view = draw(0)
    a, b = run(LinearProbe(), view), run(LinearProbe(), view, Steps(horizon=3, until=0.1))
    assert (a.predictions == b.predictions).all()


def test_a_strength_of_zero_is_refused() -> None:
    with pytest.raises(Unfit, match="above 0"):
        LinearProbe(strengths=(0.0, 1.0))
