"""Target: the task a person brings, and the seal on its test rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from .errors import Refused
from .metrics import Metric
from .needs import Modality, TaskType

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

Protocol = Literal["outer_cv", "holdout", "user_test", "time"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What is predicted. classes: names in sorted order, for label tasks; pair: the input is two texts."""

    type: TaskType
    classes: tuple[str, ...] = ()
    pair: bool = False

    @property
    def outputs(self) -> int:
        """Columns of a table of predictions: one for each class, or one for a number."""
        return len(self.classes) or 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """How inputs and labels were found in the user's table, so that a new table is read in the same way."""

    label: str | None = None
    text: tuple[str, ...] = ()  # joined by a line break
    pair: tuple[str, str] | None = None
    image: str | None = None
    features: tuple[tuple[str, Literal["number", "category"]], ...] = ()
    group: str | None = None
    time: str | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Rows:
    """Rows in a fixed order.

    ids: unique name of each row (content hash, and a counter where inputs repeat).
    content: hash of each row's normalised input; equal inputs have equal hashes. groups: rows of one group never lie
    on two sides of a split. inputs: an Arrow table of the modality's own columns: `text` (and `text_pair`), `image`
    (struct of bytes and path), `tokens`, or the feature columns. labels: (rows,) class numbers int64, or float64 for
    regression; (rows, classes) int8 for multi-label; an object array of tag lists for tagging; None for none.
    """

    ids: tuple[str, ...]
    content: tuple[str, ...]
    groups: tuple[str, ...]
    inputs: pa.Table
    labels: np.ndarray[Any, Any] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Sequence[int]) -> Rows:
        """These rows, in this order."""
        at = [int(r) for r in rows]
        return Rows(
            tuple(self.ids[i] for i in at),
            tuple(self.content[i] for i in at),
            tuple(self.groups[i] for i in at),
            self.inputs.take(at) if at else self.inputs.slice(0, 0),  # Arrow cannot take an empty list
            None if self.labels is None else self.labels[at],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Folds:
    """Which fold scores each labelled row: `of[repeat][row]`, -1 where a row is trained on only.

    kind `cv`: k folds in each repeat. kind `split`: one fold, 0, is the validation part.
    """

    kind: Literal["cv", "split"]
    k: int
    of: tuple[tuple[int, ...], ...]

    @property
    def repeats(self) -> int:
        return len(self.of)

    def cells(self) -> tuple[tuple[int, int], ...]:
        """All (repeat, fold) pairs, in order."""
        return tuple((r, f) for r in range(self.repeats) for f in range(self.k))

    def sides(self, repeat: int, fold: int) -> tuple[list[int], list[int]]:
        """Rows to train on and rows to score, of one cell.

        >>> Folds(kind="cv", k=2, of=((0, 1, -1, 0),)).sides(0, 0)
        ([1, 2], [0, 3])
        """
        of = self.of[repeat]
        return [i for i, f in enumerate(of) if f != fold], [i for i, f in enumerate(of) if f == fold]


class Seal:
    """Test rows that only `open` shows, and that counts how often it did.

    ids and content hashes are visible from the start: they say how many rows there are and which inputs they are,
    which contamination checks need, and nothing about labels.
    """

    __slots__ = ("_rows", "content", "groups", "ids", "opened")

    def __init__(
        self, rows: Callable[[], Rows], *, ids: tuple[str, ...], content: tuple[str, ...], groups: tuple[str, ...]
    ) -> None:
        self._rows, self.ids, self.content, self.groups, self.opened = rows, ids, content, groups, 0

    def __len__(self) -> int:
        return len(self.ids)

    def open(self) -> Rows:
        """The test rows with their labels, once. Raises `Refused` at a second call."""
        if self.opened:
            raise Refused(
                "the test rows of this target were read before",
                where="the seal of the test rows",
                fix="read the target again for a new claim; the bank counts how often a test was opened",
            )
        self.opened += 1
        return self._rows()


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Target:
    """A task with its rows. Test rows are behind the seal; nothing here reads a file.

    fingerprint: of task, columns, row ids, labels and protocol. protocol `outer_cv` has no test rows of its own: the
    verdict comes from outer folds, each a Target with its own seal. notes: sentences for the receipt and report.
    facts: JSON values for the target card, measured while reading.
    """

    name: str
    task: Task
    modality: Modality
    metric: Metric
    columns: Columns
    labelled: Rows
    unlabelled: Rows
    folds: Folds
    protocol: Protocol
    seal: Seal
    fingerprint: str
    seed: int = 0
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
