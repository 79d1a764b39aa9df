"""What is in the table: its columns, the task that it sets, the splits that follow, and the target card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headstart.core import Columns, Problem, Rows, Target, Task


def read_target(
    data: Any,
    *,
    label: str | None = None,
    text: str | Sequence[str] | None = None,
    pair: str | Sequence[str] | None = None,
    image: str | None = None,
    group: str | None = None,
    time: str | None = None,
    test: Any = None,
    metric: str | None = None,
    task: str | None = None,
    seed: int = 0,
    name: str | None = None,
    labels: int | None = None,
) -> Target:
    """A target from a file, a folder, or an object; what is not named is inferred, and noted.

    data: CSV, TSV, XLSX, JSONL, parquet, CoNLL, a folder of images by class, a `datasets` object or saved folder, a
    DataFrame, an Arrow table, arrays (X, y), or texts with labels. text: columns joined by line breaks, such as
    `subject,body`. pair: two columns. group: rows of one group stay on one side. time: the latest fifth is the test.
    test: a split of your own, as data is. labels: the most labelled rows used, besides those of such a test.
    Raises `Unfit` or `Unreadable`.
    """
    from .reading import target_from

    return target_from(
        data, label=label, text=text, pair=pair, image=image, group=group, time=time, test=test, metric=metric,
        task=task, seed=seed, name=name, labels=labels,
    )  # fmt: skip


def read_datasets(
    folder: str | Path, *, label: str | None = None, apart_from: str | Path | None = None, seed: int = 0
) -> tuple[list[Target], list[tuple[str, Problem]]]:
    """The labelled data sets of a folder, one for each file or folder in it; and those that cannot be read, with why.

    Label and inputs are inferred as a target's are. label: the column that is taken where none is clearly the label.
    apart_from: the place of the target, which is left out.
    """
    from .datasets import datasets_in

    own = None if apart_from is None else Path(apart_from).expanduser()
    return datasets_in(Path(folder).expanduser(), label, own, seed)


def read_rows(data: Any, columns: Columns, modality: str, task: Task) -> Rows:
    """New rows, read as the target's were. Labels are there where the data has the label column.

    A label that the task does not know, or a blank one, is -1 (NaN for regression).
    """
    from .reading import new_rows

    return new_rows(data, columns, modality, task)


def read_unlabelled(
    data: Any,
    *,
    text: str | Sequence[str] | None = None,
    pair: str | Sequence[str] | None = None,
    image: str | None = None,
) -> Rows:
    """Texts or images without labels, from whatever `read_target` reads; the input is inferred where it is not named.

    A column whose name says that it is a label is not read. Raises `Unfit` or `Unreadable`.
    """
    from .reading import unlabelled_rows

    return unlabelled_rows(data, text=text, pair=pair, image=image)


def inspect(target: Target) -> dict[str, Any]:
    """The target card, as JSON values; never a label of a test row."""
    from .card import card_of

    return card_of(target)


def outer_targets(target: Target, k: int = 5) -> tuple[Target, ...]:
    """A target for each outer fold: its own seal, folds, and protocol `holdout`; fewer than k where groups are few."""
    from .reading import split_outer

    return split_outer(target, k)
