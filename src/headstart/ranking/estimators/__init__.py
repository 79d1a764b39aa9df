"""Estimators: proxies that predict how well a source will do on a target; higher is better. A file here is one."""

from __future__ import annotations

from collections.abc import Sequence

from headstart import catalogue
from headstart.core import Ranking, Refused, Score, View


def score(view: View, methods: Sequence[str | Ranking]) -> dict[str, Score]:
    """Scores of one source by each estimator, by the name given or the class name of an instance, in order.

    Raises `Refused` for an estimator that does not work on the view's task, before any of them runs.
    """
    chosen: dict[str, Ranking] = {}
    for method in methods:
        made: Ranking = catalogue.make("ranking.estimators", method)
        name = method if isinstance(method, str) else type(method).__name__
        if view.task not in made.needs.tasks:
            able = [n for n, e in catalogue.entries("ranking.estimators").items() if view.task in e.needs.tasks]
            raise Refused(
                f"`{name}` does not work on a {view.task.replace('_', '-')} task",
                where="the estimators asked for",
                fix=f"use one of: {', '.join(able)}" if able else "no estimator works on this task yet",
            )
        chosen[name] = made
    return {name: method(view) for name, method in chosen.items()}
