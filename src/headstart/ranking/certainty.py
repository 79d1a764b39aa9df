"""How sure the order of a ranking is, and what it would cost to know better: from the probes' predictions alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

from headstart.core import Measured, Receipt, Source, Target, called

if TYPE_CHECKING:
    from headstart.ranking.racing import Ranked

STOPS = {"interrupt": "Ctrl-C", "time": "the end of its time"}
GOES_ON = "the same command goes on from there: what was read is kept"


@dataclass(frozen=True, slots=True)
class Certainty:
    """Of one source. first: share of the draws of rows in which it is the best.

    rival: the best source, or the second for the best itself. gap: how much better it is than its rival, in pairs of
    rows. rows: labelled rows at which a gap like this would no longer hold 0 in its interval; None where it does not
    already, or where the two are equal.
    """

    first: float
    rival: str | None = None
    gap: Measured | None = None
    rows: int | None = None

    def as_dict(self) -> dict[str, Any]:
        gap = {"value": self.gap.value, "low": self.gap.low, "high": self.gap.high} if self.gap else None
        return {"first": self.first, "rival": self.rival, "gap": gap, "rows": self.rows}


def certainties(ranked: Sequence[Ranked], target: Target) -> dict[str, Certainty]:
    """By identity, of the sources that were ranked to the end, best first."""
    from headstart.execution.parts import firsts_out_of_fold, gained_out_of_fold

    probed = [(one, one.probe.cells()) for one in ranked if one.probe is not None]
    if not probed:
        return {}
    shares = firsts_out_of_fold(target, [cells for _, cells in probed])
    found, names = {}, called(one.source for one in ranked)
    for at, (one, cells) in enumerate(probed):
        if len(probed) == 1:
            found[one.source.identity] = Certainty(1.0)
            continue
        rival, other = probed[1 if at == 0 else 0]
        gap = gained_out_of_fold(target, cells, other)
        found[one.source.identity] = Certainty(float(shares[at]), names[rival.source.identity], gap, _rows_to_tell(gap))
    return found


def _rows_to_tell(gap: Measured) -> int | None:
    """An interval narrows with the root of the rows."""
    if gap.value == 0 or gap.low > 0 or gap.high < 0:
        return None
    end = gap.low if gap.value > 0 else gap.high
    return ceil(gap.rows * ((gap.value - end) / gap.value) ** 2)


def unjudged(target: Target) -> str:
    """Of which classes no figure tells anything, as no fold scores them; empty where there are none."""
    labels = target.labelled.labels
    if labels is None or target.task.type != "single_label":
        return ""
    judged = {int(labels[row]) for of in target.folds.of for row, fold in enumerate(of) if fold >= 0}
    lacking = [target.task.classes[c] for c in sorted({int(c) for c in labels} - judged)]
    names = ", ".join(f"`{name}`" for name in lacking[:3]) + (", …" if len(lacking) > 3 else "")
    return f"no row of {names} was predicted, which has one row or group alone" if lacking else ""


def _last_loss(loss: Mapping[str, Any] | None) -> str:
    if loss is None:
        return "the race had not judged it"
    between = f"{loss['value']:.3g}, {loss['low']:.3g} to {loss['high']:.3g}"
    return f"squared error of a linear probe {between}, when the race judged it last, on {loss['rows']:,} rows"


def words(source: Source, target: Target) -> tuple[str, str, str]:
    """What a score saw, how sure it is, and what it would cost to know better: three sentences from the receipt."""
    assert source.receipt is not None
    facts, score = source.receipt.facts, source.receipt.scores.get("score")
    seconds = source.receipt.seconds
    seen = f"{facts['rows']:,} of {len(target.labelled):,} labelled rows in {seconds:.1f} s"
    if facts["stopped"]:
        return f"it saw {seen}, and was stopped by {STOPS[facts['stopped']]}", _last_loss(facts["loss"]), GOES_ON
    if facts["error"]:
        return f"it was not read: {facts['error']['what']}", "nothing is known", str(facts["error"]["fix"])
    if score is None:
        return f"it saw {seen}, and left", str(facts["dropped"]), "`--race none` scores it on all rows"
    title, sure = target.metric.title, facts["certainty"]
    unseen = unjudged(target)
    held = f"{score.rows:,} labelled rows, each predicted by a probe that had not seen it"
    saw = f"it saw {held}{f'; {unseen}' if unseen else ''}; {seconds:.1f} s"
    said = f"{title} of its probe {score.value:.3f}, {score.low:.3f} to {score.high:.3f} in 95 %"
    more = "what training adds, `headstart adapt` shows, or `--expect` from past runs"
    best = facts.get("predicted")
    if best and best["targets"]:
        between = f"{best['low']:.3f} to {best['high']:.3f} in {100 * best['coverage']:.0f} %"
        said = f"{title} by `{best['route']}` {best['value']:.3f}, {between}, {best['basis']}; {said}"
        more = f"what training adds, `headstart adapt --method {best['route']}` shows"
    if sure["gap"] is None:
        return saw, said, "it is the only one that was scored: add sources to compare"
    gap = sure["gap"]
    ahead, sign = ("ahead of", 1) if gap["value"] > 0 else ("behind", -1)
    low, high = sorted(sign * gap[end] + 0.0 for end in ("low", "high"))  # of what is told: behind by so much
    between = f"{abs(gap['value']):.3f} {ahead} `{sure['rival']}` ({low:.3f} to {high:.3f})"
    said += f"; first in {sure['first']:.0%} of draws of these rows, {between}"
    if sure["rows"] is None:
        settled = "equal so far" if gap["value"] == 0 else "these rows tell the two apart"
        return saw, said, f"{settled}; {more}"
    return saw, said, f"{len(target.labelled):,} rows do not tell it from `{sure['rival']}`; {_needed(source.receipt)}"


def brief(source: Source) -> tuple[Measured, str]:
    """Of one that was scored beside others: its gap to its rival, and what would tell the two apart."""
    assert source.receipt is not None
    sure = source.receipt.facts["certainty"]
    gap = Measured(**sure["gap"], rows=source.receipt.scores["score"].rows)
    if sure["rows"] is None:
        return gap, "equal so far" if gap.value == 0 else "these rows do"
    return gap, _needed(source.receipt)


def _needed(receipt: Receipt) -> str:
    """What it takes to tell a source from its rival."""
    rows, pace = receipt.facts["certainty"]["rows"], receipt.facts["pace"]
    cost = "" if pace is None else f", read in {_time(pace * rows)}"  # not known where nothing was read
    return f"about {_about(rows):,} labelled rows would{cost}"


def _about(rows: int) -> int:
    """With two digits, as more of them are not known, and no fewer than there are.

    >>> _about(80), _about(493), _about(3539964)
    (80, 500, 3600000)
    """
    step: int = 10 ** max(len(str(rows)) - 2, 0)
    return -(-rows // step) * step


def _time(spent: float) -> str:
    """
    >>> _time(0.123), _time(1.94), _time(234.5), _time(1234.5), _time(35972)
    ('0.1 s', '1.9 s', '234 s', '21 minutes', '10 hours')
    """
    if spent < 600:
        return f"{spent:.0f} s" if spent >= 10 else f"{spent:.1f} s"
    return f"{spent / 60:.0f} minutes" if spent < 7200 else f"{spent / 3600:,.0f} hours"
