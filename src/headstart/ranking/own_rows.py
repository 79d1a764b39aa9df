"""Own rows: which data sets hold rows that sources learned from; each is the source's that it is called like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headstart.core import Problem, Refused, Rows, Source, Target, TaskType, Unfit

if TYPE_CHECKING:
    from headstart.execution.run import Run

MOST = 1000  # rows of one source that are read


@dataclass(frozen=True, eq=False, slots=True)
class Own:
    """Rows that a source learned from, in the form of the target's. folder: below the run folder, where they lie."""

    rows: Rows
    task: TaskType
    folder: str


def own_rows(sources: Sequence[Source], datasets: Sequence[Target]) -> dict[str, Target | Problem]:
    """By identity of each source the data set that is called like it, or why there is none.

    A source goes by its name, or by the last part of it, and a layer or pooling by the name of what it is one of.
    Raises `Unfit` where data sets are given and none is called like a source.
    """
    found = {source.identity: _of(source, sources, datasets) for source in sources}
    if datasets and sources and not any(isinstance(one, Target) for one in found.values()):
        raise Unfit(
            f"no data set is called like a source: {_listed([d.name for d in datasets])}",
            where="the rows that sources learned from",
            fix=f"name them like the sources: {_listed([_last(source) for source in sources])}",
        )
    return found


def laid_out(own: Mapping[str, Target | Problem], target: Target, run: Run) -> dict[str, Own | Problem]:
    """By identity of each source rows of its data set, dumped for the workers, or why there are none.

    A seal opens once, so each data set is read once, for all layers and poolings of its source.
    """
    from headstart.execution.samples import dumped_rows

    read: dict[str, Own | Problem] = {}
    found: dict[str, Own | Problem] = {}
    for identity, dataset in own.items():
        if isinstance(dataset, Problem):
            found[identity] = dataset
            continue
        if dataset.name not in read:
            try:
                folder, rows = dumped_rows(run, dataset, target, MOST)
                read[dataset.name] = Own(rows, dataset.task.type, folder)
            except Problem as problem:  # as of another modality
                read[dataset.name] = problem
        found[identity] = read[dataset.name]
    return found


def _of(source: Source, sources: Sequence[Source], datasets: Sequence[Target]) -> Target | Problem:
    name = _last(source)
    mine = [d for d in datasets if d.name in (name, _whole(source))]
    where = f"source `{source.name}`"
    if not datasets:
        return Refused("no data sets were given", where=where, fix="name their folder with --datasets")
    if not mine:
        return Refused("no data set is called so", where=where, fix=f"call its file `{name}`, as in {name}.csv")
    if len(mine) > 1:
        return Refused(f"{len(mine)} data sets are called `{name}`", where=where, fix="leave one of them")
    if len({_whole(other) for other in sources if mine[0].name in (_last(other), _whole(other))}) > 1:
        return Refused(f"several sources are called `{name}`", where=where, fix="rank these in calls of their own")
    return mine[0]


def _whole(source: Source) -> str:
    tap = source.facts.get("tap")
    return source.name.removesuffix(f"@{tap['layer']}:{tap['pooling']}") if tap else source.name


def _last(source: Source) -> str:
    return _whole(source).rpartition("/")[2]


def _listed(names: Sequence[str]) -> str:
    some = list(dict.fromkeys(names))
    return ", ".join(f"`{name}`" for name in some[:5]) + (" …" if len(some) > 5 else "")
