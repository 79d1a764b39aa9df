"""The page about a merge that was chosen on validation rows, from JSON values alone; as safe as the report of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from headstart.core import METRICS

from . import figures
from .report import MARKS, environment, shown_plainly

JSON = Mapping[str, Any]
SHOWN = 60  # candidates, before the rest is only counted


def render(title: str, facts: JSON) -> str:
    """The whole page. facts: what `combination.auto` says of its choice. The same facts give the same page."""
    said: dict[str, Any] = shown_plainly(dict(facts))
    systems = [{**s, "strong": s["name"] == said["winner"]} for s in said["systems"]]
    known = METRICS[said["metric"]]
    drawn = [
        {"name": s["name"], "value": s["mean"], "low": s["low"], "high": s["high"], "strong": s["strong"]}
        for s in systems
    ]
    opponent = next(s for s in systems if s["name"] == said["opponent"])
    values = {
        "title": shown_plainly(title),
        "said": said,
        "metric": known.title,
        "lower": not known.higher_is_better,
        "several": len(said["tasks"]) > 1,
        "systems": systems,
        "figure": Markup(figures.intervals(drawn, label=_label(said, known.title), mark=opponent["mean"])),
        "sentence": sentence(said),
        "headline": _headline(said),
        "mark": MARKS[said["verdict"]],
        "candidates": said["candidates"][:SHOWN],
        "more": max(0, len(said["candidates"]) - SHOWN),
        "pairs": _pairs(said["interference"]),
        "largest": _largest(said["interference"]["layers"]),
    }
    return environment().get_template("merge.html").render(values)


def sentence(facts: JSON) -> str:
    """What came of the choice, in a sentence.

    >>> sentence({"winner": "a", "opponent": "a", "gain": None, "verdict": "no-evidence", "metric": "accuracy"})
    'no merge did better than `a` on the rows to choose by, so that is what was written'
    """
    if facts["gain"] is None:
        return f"no merge did better than `{facts['winner']}` on the rows to choose by, so that is what was written"
    gain, metric = facts["gain"], METRICS[facts["metric"]].title
    span = f"{gain['value']:+.3f} in {metric}, between {gain['low']:+.3f} and {gain['high']:+.3f}"
    opponent = f"`{facts['opponent']}`, the baseline that was best on the rows to choose by"
    if facts["verdict"] == "helps":
        return f"`{facts['winner']}` is better than {opponent}: {span}"
    if facts["verdict"] == "hurts":
        return (
            f"`{facts['winner']}` was best on the rows to choose by, and is worse than `{facts['opponent']}` on rows "
            f"that no choice has seen: {span}"
        )
    return f"no evidence that `{facts['winner']}` is better than {opponent}: {span}"


def _headline(facts: JSON) -> str:
    if facts["gain"] is None:
        return "No merge was better"
    return {"helps": "The merge is better", "hurts": "The merge is worse"}.get(
        facts["verdict"], "No evidence that the merge is better"
    )


def _label(facts: JSON, metric: str) -> str:
    return metric if len(facts["tasks"]) == 1 else f"{metric}, mean of {len(facts['tasks'])} tasks"


def _pairs(found: JSON) -> list[JSON]:
    names = found["models"]
    return [
        {"one": a, "other": b, "cosine": found["cosines"][i][j], "conflict": found["conflict"][i][j]}
        for i, a in enumerate(names)
        for j, b in enumerate(names)
        if i < j
    ]


def _largest(layers: Sequence[JSON]) -> float:
    """By which the shares are shaded."""
    return max((abs(s) for part in layers for s in part["shares"] if s is not None), default=0.0) or 1.0
