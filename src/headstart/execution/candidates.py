"""What sources say about one target, side by side, for methods that judge sets of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core import Needs, TaskType, Undeclared
from headstart.numerics.moments import Moments

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Told:
    """A `core.Candidate`: one source, and what it told of some labelled rows; a method sees what it declares.

    needs, method: who asks. rows: numbers of the rows. known, dealt, scored: labels, folds and table of all rows.
    files: where a `tell` job left what the source gives, None where it was not asked. own_labels: of the rows that it
    learned from, or of their words, where the job was given some.
    """

    needs: Needs
    method: str
    task: TaskType
    classes: int
    rows: Array
    known: Array
    dealt: Array
    scored: Array
    files: Path | None = None
    own_labels: Array | None = None
    kept: dict[str, Any] = field(default_factory=dict)

    def among(self, rows: Array) -> Told:
        """The same source, on these rows alone."""
        return replace(self, rows=rows, kept={})

    @property
    def labels(self) -> Array:
        self._require(self.needs.labels, "labels", "leave `labels=False` out of its needs")
        return np.asarray(self.known[self.rows])

    @property
    def folds(self) -> Array:
        return np.asarray(self.dealt[self.rows])

    @property
    def table(self) -> Array:
        self._require(self.needs.probe, "table", "add `probe=True` to its needs")
        return np.asarray(self.scored[self.rows])

    @property
    def seen(self) -> Array:
        """(rows,) whether what was asked for is there: of a word that was cut off there is nothing."""
        told = [self._read(gift, gift) for gift in ("features", "predictions") if gift in asked_of(self.needs)]
        here = [~np.isnan(one).any(axis=1) for one in told]
        return np.asarray(np.logical_and.reduce([np.ones(len(self.rows), dtype=bool), *here]))

    @property
    def own(self) -> tuple[Array, Array] | None:
        """At hand where a data set was given: of what a source learned from, no more than hashes of rows is kept."""
        self._require(self.needs.own_rows, "own", "add `own_rows=True` to its needs")
        if self.own_labels is None:
            return None
        assert self.files is not None
        features = np.load(self.files / "own.npy", allow_pickle=False)
        seen = ~np.isnan(features).any(axis=1)
        return features[seen], self.own_labels[seen]

    @property
    def features(self) -> Array:
        return self._read("features", "features")

    @property
    def predictions(self) -> Array:
        return self._read("predictions", "predictions")

    @property
    def moments(self) -> Moments:
        features = self._read("features", "moments")
        if "moments" not in self.kept:
            self.kept["moments"] = Moments.of(features, self.known[self.rows], self.classes)
        moments: Moments = self.kept["moments"]
        return moments

    def _read(self, gift: str, what: str) -> Array:
        self._require(gift in asked_of(self.needs), what, f'add "{gift}" to `gives` of its needs')
        if gift not in self.kept:
            assert self.files is not None
            self.kept[gift] = np.load(self.files / f"{gift}.npy", mmap_mode="r", allow_pickle=False)[self.rows]
        return np.asarray(self.kept[gift])

    def _require(self, declared: bool, what: str, fix: str) -> None:
        if not declared:
            raise Undeclared(f"`candidate.{what}` was read", where=f"method `{self.method}`", fix=fix)


def asked_of(needs: Needs) -> tuple[str, ...]:
    """What a source must be opened for; where a probe stands for its features, not for these.

    >>> asked_of(Needs(gives=("features", "predictions"), probe=True))
    ('predictions',)
    """
    return tuple(g for g in needs.gives if not (g == "features" and needs.probe))
