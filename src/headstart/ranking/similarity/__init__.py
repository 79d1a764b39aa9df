"""Similarities: how alike two labelled data sets are, as tasks, through one encoder. A file here is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from headstart import catalogue
from headstart.core import Refused, Resembling, TaskSample

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


def embed(sample: TaskSample, method: str | Resembling) -> dict[str, Array]:
    """What a similarity compares of a task. Raises `Refused` where it does not work on such tasks."""
    made: Resembling = catalogue.make("ranking.similarity", method)
    if sample.task not in made.needs.tasks:
        raise Refused(
            f"`{catalogue.name_of(made)}` does not work on a {sample.task.replace('_', '-')} task",
            where="the similarities asked for",
            fix="see `headstart methods ranking.similarity` for the tasks of each",
        )
    return made.embed(sample)


def alike(source: TaskSample, target: TaskSample, methods: Sequence[str | Resembling]) -> dict[str, float]:
    """How alike two tasks are by each similarity, by the name given or the class name of an instance, in order."""
    found: dict[str, float] = {}
    for method in methods:
        made: Resembling = catalogue.make("ranking.similarity", method)
        name = method if isinstance(method, str) else type(method).__name__
        found[name] = made(embed(source, made), embed(target, made))
    return found


def group(maps: Sequence[Mapping[str, Array]], groups: int, *, seed: int = 0) -> tuple[int, ...]:
    """The number of the group of each task, from data maps (as `data_map` embeds tasks) of rows that all of them share.

    K-means over the maps; groups are numbered in the order of their first task. Raises `Unfit` where too few rows are
    shared, or for more groups than tasks.
    """
    from headstart.numerics.data_maps import grouped

    return grouped(maps, groups, seed)
