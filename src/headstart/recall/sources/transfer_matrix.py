"""Transfer matrix: complete the table of targets and sources by a low-rank one.

Koren, Bell and Volinsky, "Matrix Factorization Techniques for Recommender Systems", IEEE Computer 2009: biases and
factors, by alternating least squares.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.core import Guess, Known, Needs, Unfit
from headstart.numerics.records import Records, standard

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class TransferMatrix:
    """The new target's row of the completed table: bias of target and source, and a few factors of each.

    figure(t, s) = a(t) + b(s) + u(t)·v(s), fitted to standardised figures by alternating ridge regressions. The new
    target is one more row with the figures that it has; without any it has no factors, and its guess is b.

    Shapes: records (T, S); rounds · T·S·rank² operations, T·S·rank² numbers of memory.
    Returns: values (S,), in standard deviations of the new target's own figures where it has some, and their standard
    errors: the residual and the uncertainty of the row, those of the sources' factors taken as they are.
    Errors: `Unfit` when rank is below 0, or ridge or rounds is not above 0.

    Similarities are not read. Useful from a handful of figures of the new target on; with fewer, prefer nearest_tasks.
    """

    needs = Needs(labels=False)
    claims = ("source_order", "target_order", "scale", "direction", "completes")
    cites = "doi:10.1109/MC.2009.263"

    rank: int = 2
    # strength of the pull of biases and factors to 0, in squared standard deviations
    ridge: float = 1.0
    rounds: int = 50

    def __post_init__(self) -> None:
        if self.rank < 0 or not self.ridge > 0 or self.rounds < 1:
            raise Unfit(
                f"rank {self.rank}, ridge {self.ridge} and rounds {self.rounds} cannot be",
                where="TransferMatrix(rank=…, ridge=…, rounds=…)",
                fix="use 2, 1.0 and 50, the defaults",
            )

    def __call__(self, records: Records, target: Known) -> Guess:
        count = len(records.sources)
        new = np.full(count, np.nan) if target.values is None else records.sign * np.asarray(target.values)
        figures = np.vstack([records.standardised(), standard(new)])
        seen = np.isfinite(figures)
        filled = np.where(seen, figures, 0.0)
        rows, columns = self._completed(filled, seen)
        fitted = rows @ columns.T
        rank = rows.shape[1] - 2
        freedom = max(seen.sum() - (rank + 1) * (seen.any(axis=0).sum() + seen.any(axis=1).sum()), seen.sum() / 2, 1)
        variance = np.square(np.where(seen, filled - fitted, 0.0)).sum() / freedom
        # the last row's regression: columns 1 and v stand beside b, whose weight is fixed
        design = np.delete(columns, 1, axis=1)
        gram = (design * seen[-1][:, None]).T @ design + self.ridge * np.eye(rank + 1)
        leverage = (design * np.linalg.solve(gram, design.T).T).sum(axis=1)
        known = seen[:-1].any(axis=0)
        return Guess(
            np.where(known, fitted[-1], np.nan),
            np.where(known, np.sqrt(variance * (1 + leverage)), np.nan),
            {"tried": int(seen[-1].sum())},
        )

    def _completed(self, figures: Array, seen: Array) -> tuple[Array, Array]:
        """Rows (T, 2 + rank) of a, 1, u and columns (S, 2 + rank) of 1, b, v, whose products are the figures."""
        left, sizes, right = np.linalg.svd(figures, full_matrices=False)
        rank = min(self.rank, len(sizes))
        root = np.sqrt(sizes[:rank])
        rows = np.hstack([np.zeros((len(figures), 1)), np.ones((len(figures), 1)), left[:, :rank] * root])
        columns = np.hstack([np.ones((right.shape[1], 1)), np.zeros((right.shape[1], 1)), right[:rank].T * root])
        for _ in range(self.rounds):
            columns[:, 1:] = self._regressed(figures.T - rows[:, 0], seen.T, rows[:, 1:])
            free = np.delete(columns, 1, axis=1)
            rows[:, [0, *range(2, 2 + rank)]] = self._regressed(figures - columns[:, 1], seen, free)
        return rows, columns

    def _regressed(self, wanted: Array, seen: Array, design: Array) -> Array:
        """One ridge regression for each row of `wanted`, on the rows of the design that it has seen."""
        width = design.shape[1]
        products = (design[:, :, None] * design[:, None, :]).reshape(len(design), -1)
        grams = (seen @ products).reshape(-1, width, width) + self.ridge * np.eye(width)
        sides = np.where(seen, wanted, 0.0) @ design
        return np.asarray(np.linalg.solve(grams, sides[:, :, None])[:, :, 0])
