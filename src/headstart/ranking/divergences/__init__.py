"""Divergences: how far a data set is from the target's rows; smaller is nearer. A file here is one."""

from __future__ import annotations

from collections.abc import Sequence

from headstart import catalogue
from headstart.core import Diverging, Refused, Sample


def compare(source: Sample, target: Sample, methods: Sequence[str | Diverging]) -> dict[str, float]:
    """How far apart two data sets are by each divergence, by the name given or the class name of an instance, in order.

    Raises `Refused` for a divergence that does not work on the task of one of them, before any of them runs.
    """
    chosen: dict[str, Diverging] = {}
    for method in methods:
        made: Diverging = catalogue.make("ranking.divergences", method)
        name = method if isinstance(method, str) else type(method).__name__
        for sample in (source, target):
            if sample.task not in made.needs.tasks:
                raise Refused(
                    f"`{catalogue.name_of(made)}` does not work on a {sample.task.replace('_', '-')} task",
                    where="the divergences asked for",
                    fix="see `headstart methods ranking.divergences` for those that read no labels",
                )
        chosen[name] = made
    return {name: method(source, target) for name, method in chosen.items()}
