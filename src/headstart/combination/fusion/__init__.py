"""Fusion: predictions of several systems become one table. A file here is a method."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headstart import catalogue
from headstart.core import Fusing

if TYPE_CHECKING:
    from headstart.core.kinds import Array


def fuse(
    tables: Array, labels: Array, folds: Array, metric: str, method: str | Fusing = "greedy_ensemble"
) -> tuple[Array, Array]:
    """Blended out-of-fold predictions and the final weights of several systems.

    tables: (members, repeats, rows, outputs), NaN where a cell was not scored. folds: (repeats, rows), the fold that
    scores each row, -1 for none. Each row is blended with weights that were fitted on the rows of other folds; NaN
    where not all members have the cell. The final weights use all folds.
    """
    from headstart.numerics.crossfit import crossfit

    chosen: Fusing = catalogue.make("combination.fusion", method)
    return crossfit(tables, labels, folds, lambda parts, truth: chosen(parts, truth, metric))
