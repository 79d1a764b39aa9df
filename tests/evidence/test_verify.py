"""Verify: the verdict's words, both questions, and what stands beside them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from headstart.core import Unfit
from headstart.evidence import verify
from headstart.numerics.metrics import value


def task(seed: int = 0, rows: int = 90):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(rows) % 3)
    noise = rng.random(rows)

    def table(right: float):
        """A system that is right on that share of rows, the same rows for all weaker ones."""
        return 0.1 + 0.7 * np.eye(3)[np.where(noise < right, labels, (labels + 1) % 3)]

    return labels, [f"r{i}" for i in range(rows)], table


def test_the_three_words() -> None:
    labels, groups, table = task()
    words = {
        right: verify(table(right), ("tfidf", table(0.7)), None, labels, groups, "macro_f1").verdict
        for right in (0.95, 0.72, 0.4)
    }
    assert words == {0.95: "helps", 0.72: "no-evidence", 0.4: "hurts"}


def test_both_questions_scores_and_findings() -> None:
    labels, groups, table = task()
    found = verify(
        table(0.9),
        ("tfidf", table(0.6)),
        ("probe of the first", table(0.88)),
        labels,
        groups,
        "accuracy",
        baselines={"majority": table(0.3)},
    )
    assert found.gain is not None
    assert found.gain.value == pytest.approx(
        value("accuracy", labels, table(0.9)) - value("accuracy", labels, table(0.6))
    )
    assert found.choice_gain is not None
    assert (found.choice_gain.opponent, found.choice_gain.verdict) == ("probe of the first", "no-evidence")
    assert list(found.baselines) == ["tfidf", "probe of the first", "majority"]
    assert [f.name for f in found.findings] == ["mcnemar"]
    assert found.chosen is not None
    assert found.chosen.score.low < found.chosen.score.value < found.chosen.score.high
    assert np.array(found.chosen.confusion).sum() == 90
    assert all(table(0.9)[i].argmax() != labels[i] for i in found.chosen.worst)
    assert json.loads(json.dumps(found.as_dict()))["verdict"] == "helps"


def test_without_a_usable_source_there_is_no_evidence_and_no_gain() -> None:
    labels, groups, table = task()
    found = verify(None, ("tfidf", table(0.7)), None, labels, groups, "macro_f1")
    assert (found.verdict, found.gain, found.choice_gain, found.chosen) == ("no-evidence", None, None, None)
    assert found.no_transfer.score.value == value("macro_f1", labels, table(0.7))
    assert found.findings == ()
    assert found.no_transfer.calibration is not None
    assert found.no_transfer.calibration.figures["accuracy"] == pytest.approx(value("accuracy", labels, table(0.7)))


def test_numbers_are_judged_with_lower_as_better() -> None:
    rng = np.random.default_rng(0)
    labels = rng.normal(size=60)
    good, bad = labels + 0.1 * rng.normal(size=60), labels + rng.normal(size=60)
    found = verify(good[:, None], ("ridge", bad[:, None]), None, labels, [str(i) for i in range(60)], "rmse")
    assert found.verdict == "helps"
    assert found.findings == ()
    assert found.chosen is not None
    assert found.chosen.confusion == ()
    assert found.chosen.worst[0] == np.abs(good - labels).argmax()


def test_the_factor_widens_every_interval() -> None:
    labels, groups, table = task()
    narrow, wide = (
        verify(table(0.8), ("tfidf", table(0.7)), None, labels, groups, "macro_f1", factor=f) for f in (1.0, 1.5)
    )
    for a, b in ((narrow.gain, wide.gain), (narrow.no_transfer.score, wide.no_transfer.score)):
        assert a is not None
        assert b is not None
        assert b.high - b.low == pytest.approx(1.5 * (a.high - a.low))


def test_the_same_tables_give_the_same_findings() -> None:
    labels, groups, table = task()
    one, two = (verify(table(0.8), ("t", table(0.7)), None, labels, groups, "auroc").as_dict() for _ in range(2))
    assert one == two


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda y, g, p: (y[:-1], g, p), "rows"),
        (lambda y, g, p: (y, g[:-1], p), "rows"),
        (lambda y, g, p: (y[:0], g[:0], p[:0]), "rows"),
        (lambda y, g, p: (y, g, np.where(p > 0.5, np.nan, p)), "not numbers"),
    ],
)
def test_tables_that_do_not_fit_are_unfit(break_it, says: str) -> None:
    labels, groups, table = task()
    y, g, p = break_it(labels, groups, table(0.8))
    with pytest.raises(Unfit, match=says):
        verify(p, ("t", p), None, y, g, "accuracy")
    with pytest.raises(Unfit, match="no metric"):
        verify(table(1), ("t", table(1)), None, labels, groups, "acuracy")
