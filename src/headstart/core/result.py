"""Result: a saved outcome that predicts, and needs nothing outside its folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .receipt import Receipt

Verdict = str  # "helps", "hurts" or "no-evidence"; None where verify did not run


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Prediction:
    """Predictions in the order of the rows given.

    labels: class names, or numbers for regression. probabilities: rows × classes, in the order of `classes`;
    empty for regression. names: of images, their paths within what was given; else empty. tasks: of a merge with parts
    that stay apart, whose expert predicted each row; its probabilities of other tasks' labels are 0.
    """

    labels: tuple[Any, ...]
    probabilities: tuple[tuple[float, ...], ...] = ()
    classes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Result:
    """What `solve` returns and `load` reads.

    where: the folder. summary: the content of `solve --json`. verdict: `helps`, `hurts`, `no-evidence`, or None where
    the budget ended before verify.
    """

    where: str
    verdict: Verdict | None
    summary: Mapping[str, Any]
    receipt: Receipt
    predictor: Callable[[Any], Prediction] = field(repr=False)

    def predict(self, rows: Any) -> Prediction:
        """Labels and probabilities of new rows: a list of texts, a table file, a folder of images, a DataFrame, …"""
        return self.predictor(rows)
