"""Evidence: what was gained on rows that no choice has seen, against what costs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from headstart import catalogue
from headstart.core import METRICS, Finding, Measured, Unfit

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

WORST = 10  # rows shown of the worst errors
NO_EVIDENCE = "no-evidence"


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """A difference between the chosen system and one opponent, with its verdict word."""

    opponent: str
    verdict: str
    value: float
    low: float
    high: float
    sentence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Portrait:
    """How one system did, row by row: what a report shows of it.

    score: the metric with its interval. confusion: rows are labels, columns predictions; empty for numbers.
    worst: positions of the rows with the greatest loss, greatest first; only rows that are wrong, for classes.
    calibration: figures of that check; None for numbers and label sets.
    """

    score: Measured
    confusion: tuple[tuple[int, ...], ...] = ()
    worst: tuple[int, ...] = ()
    calibration: Finding | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Verified:
    """What verify found; all JSON values through `dataclasses.asdict`.

    verdict: `helps`, `hurts` or `no-evidence`. gain: chosen against the best no-transfer system; choice_gain: against
    the best naive transfer; None where there was nothing to compare. chosen: None without a usable source.
    baselines: every other system by name, the no-transfer opponent first. findings: of the checks that compare the two
    and decide nothing.
    """

    verdict: str
    metric: str
    rows: int
    groups: int
    factor: float
    gain: Judged | None
    choice_gain: Judged | None
    chosen: Portrait | None
    no_transfer: Portrait
    no_transfer_name: str
    baselines: Mapping[str, Measured]
    findings: tuple[Finding, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def verify(
    chosen: Array | None,
    no_transfer: tuple[str, Array],
    naive: tuple[str, Array] | None,
    labels: Array,
    groups: Sequence[str],
    metric: str,
    *,
    factor: float = 1.0,
    baselines: Mapping[str, Array] | None = None,
    seed: int = 0,
) -> Verified:
    """Judge tables of predictions on test rows, all in one order. Which systems stand here was fixed on validation.

    chosen: the table of the system that uses a source; None where no source could be used. no_transfer, naive: name
    and table of each opponent. baselines: tables of further systems, shown and not judged. factor: widens every
    interval; above 1 for pooled outer folds. Raises `Unfit` where tables do not fit the rows or are not finite.
    """
    from headstart.numerics.bootstrap import scored

    others = dict([no_transfer, *([naive] if naive else []), *(baselines or {}).items()])
    _fit([*([] if chosen is None else [chosen]), *others.values()], labels, groups, metric)
    mine = chosen if chosen is not None else no_transfer[1]
    first, *rest = scored(metric, labels, [mine, *others.values()], groups, factor=factor, seed=seed)
    scores = dict(zip(others, rest, strict=True))
    gain, choice_gain = (
        None if chosen is None or pair is None else _judged(chosen, pair, labels, groups, metric, factor, seed)
        for pair in (no_transfer, naive)
    )
    return Verified(
        verdict=gain.verdict if gain else NO_EVIDENCE,
        metric=metric,
        rows=len(labels),
        groups=len(set(groups)),
        factor=factor,
        gain=gain,
        choice_gain=choice_gain,
        chosen=None if chosen is None else _portrait(first, chosen, labels, groups, metric),
        no_transfer=_portrait(scores[no_transfer[0]], no_transfer[1], labels, groups, metric),
        no_transfer_name=no_transfer[0],
        baselines=scores,
        findings=() if chosen is None else _beside(chosen, no_transfer[1], labels, groups, metric),
    )


def _judged(
    chosen: Array, pair: tuple[str, Array], labels: Array, groups: Sequence[str], metric: str, factor: float, seed: int
) -> Judged:
    test = catalogue.make("evidence.checks", "paired_bootstrap", factor=factor, seed=seed)
    found: Finding = test(chosen, pair[1], labels, groups, metric)
    figures = {name: found.figures[name] for name in ("verdict", "value", "low", "high")}
    return Judged(opponent=pair[0], sentence=found.sentence, **figures)


def _beside(chosen: Array, opponent: Array, labels: Array, groups: Sequence[str], metric: str) -> tuple[Finding, ...]:
    """What checks that decide nothing say: for one label per row only."""
    if not _one_label(labels, metric):
        return ()
    return (catalogue.make("evidence.checks", "mcnemar")(chosen, opponent, labels, groups, metric),)


def _portrait(score: Measured, table: Array, labels: Array, groups: Sequence[str], metric: str) -> Portrait:
    import numpy as np

    from headstart.numerics.metrics import confusion, predicted, row_losses

    if "tagging" in METRICS[metric].tasks:
        return Portrait(score=score)
    worst = np.argsort(-row_losses(metric, labels, table), kind="stable")
    if not _one_label(labels, metric):
        return Portrait(score=score, worst=tuple(int(i) for i in worst[:WORST]))
    wrong = predicted(table) != labels
    cells = confusion(labels, table, table.shape[1])
    return Portrait(
        score=score,
        confusion=tuple(tuple(int(n) for n in row) for row in cells),
        worst=tuple(int(i) for i in worst if wrong[i])[:WORST],
        calibration=catalogue.make("evidence.checks", "calibration")(table, table, labels, groups, metric),
    )


def _one_label(labels: Array, metric: str) -> bool:
    return "single_label" in METRICS[metric].tasks and labels.ndim == 1


def _fit(tables: Sequence[Array], labels: Array, groups: Sequence[str], metric: str) -> None:
    import numpy as np

    if metric not in METRICS:
        raise Unfit(f"no metric is called `{metric}`", where="verify", fix=f"use one of: {', '.join(METRICS)}")
    sizes = {len(labels), len(groups), *(len(t) for t in tables)}
    if len(sizes) > 1 or not len(labels):
        raise Unfit(
            f"labels, groups and tables of predictions have {sorted(sizes)} rows",
            where="verify",
            fix="give one prediction, label and group for each test row, at least one row",
        )
    if "tagging" not in METRICS[metric].tasks and not all(np.isfinite(t).all() for t in [labels, *tables]):
        raise Unfit(
            "labels or predictions hold values that are not numbers",
            where="verify",
            fix="leave out systems whose predictions are not finite before verify, and say so in the report",
        )
