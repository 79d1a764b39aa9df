"""Combination: use several systems as one, by their predictions or by their weights. Each folder here is one kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headstart import catalogue

if TYPE_CHECKING:
    import numpy as np

    from headstart.execution.parts import Part, Tried
    from headstart.execution.run import Run

    Array = np.ndarray[Any, Any]

FUSION = "combination.fusion"
FINALISTS = 4  # systems with all cells that an ensemble is chosen from


@dataclass(frozen=True, eq=False, slots=True)
class Combined:
    """Systems and their weights, which sum to one; score: out of fold and cross-fitted, in the target's metric."""

    members: tuple[tuple[Tried, float], ...]
    score: float
    table: Array

    @property
    def name(self) -> str:
        if len(self.members) == 1:
            return self.members[0][0].system.name
        return " + ".join(f"{w:.2f} {t.system.name}" for t, w in self.members)


def combine(part: Part, trials: Sequence[Tried], method: str = "greedy_ensemble") -> Combined | None:
    """The best single system, or an ensemble where its cross-fitted score is higher; None without a usable trial.

    All are compared on the cells that all have. A row is blended with weights that were fitted on the other folds; the
    final weights use all folds.
    """
    import numpy as np

    from headstart.execution.parts import better, out_of_fold_score, scored_cells
    from headstart.numerics.crossfit import crossfit

    usable = _finalists(part, [t for t in trials if t.usable])
    if not usable:
        return None
    target = part.target
    tables = [t.cells() for t in usable]
    cells = scored_cells(tables)
    scores = [out_of_fold_score(target, table, cells) for table in tables]
    best = max(range(len(usable)), key=lambda i: better(target, scores[i]))
    single = Combined(((usable[best], 1.0),), scores[best], tables[best])
    if len(usable) < 2:
        return single
    fuse = catalogue.make(FUSION, method)
    labels = target.labelled.labels
    assert labels is not None
    masked = np.stack([np.where(cells[..., None], table, np.nan) for table in tables])
    blended, weights = crossfit(masked, labels, np.array(target.folds.of), lambda t, y: fuse(t, y, target.metric.name))
    score = out_of_fold_score(target, blended)
    members = tuple((t, float(w)) for t, w in zip(usable, weights, strict=True) if w > 0)
    if len(members) < 2 or not better(target, score) > better(target, scores[best]):
        return single
    return Combined(members, score, blended)


def _finalists(part: Part, trials: Sequence[Tried]) -> list[Tried]:
    """The best of those with all cells, and those that ran all folds of a gradient route.

    Systems with all cells are compared among themselves first: otherwise a route that ran three folds would reduce
    the comparison of all probes to these three.
    """
    from headstart.execution.parts import better, out_of_fold_score, scored_cells

    if not trials:
        return []
    counts = [int(scored_cells([t.cells()]).sum()) for t in trials]
    whole = [t for t, n in zip(trials, counts, strict=True) if n == max(counts)]
    most = max((len(t.folds) for t, n in zip(trials, counts, strict=True) if n < max(counts)), default=0)
    fewer = [t for t, n in zip(trials, counts, strict=True) if n < max(counts) and len(t.folds) == most > 1]
    ranked = sorted(whole, key=lambda t: -better(part.target, out_of_fold_score(part.target, t.cells())))
    return [*ranked[:FINALISTS], *fewer]


def soups(part: Part, trials: Sequence[Tried], run: Run) -> list[Tried]:
    """The greedy and the uniform soup of each source's whole-model fine-tunes, out of fold.

    An ingredient is a (route, settings, seed). Ingredients are averaged fold by fold, so no row is scored by a model
    that saw it; what is added is decided by the score averaged over folds, once for all folds.
    """
    from headstart.execution.parts import better, out_of_fold_score

    target = part.target
    most = max((len(t.folds) for t in trials if t.usable), default=0)
    by_source: dict[str, list[Tried]] = {}
    for trial in trials:
        if trial.usable and trial.system.source is not None and _whole_model(trial) and len(trial.folds) == most:
            by_source.setdefault(trial.system.source.identity, []).append(trial)
    found: list[Tried] = []
    for group in by_source.values():
        if len(group) < 2:
            continue
        from headstart.numerics.soups import greedy_soup  # loads torch, which a run without fine-tunes does not need

        made: dict[tuple[int, ...], Tried] = {(i,): t for i, t in enumerate(group)}

        def score(chosen: tuple[int, ...], group: list[Tried] = group, made: dict[Any, Tried] = made) -> float:
            if chosen not in made:
                made[chosen] = _soup(part, [group[i] for i in chosen], run)
            soup = made[chosen]
            return better(target, out_of_fold_score(target, soup.cells())) if soup.usable else float("-inf")

        kept = greedy_soup([score((i,)) for i in range(len(group))], score)
        score(tuple(range(len(group))))
        uniform = tuple(range(len(group)))
        wanted = {uniform, kept} if set(kept) != set(uniform) else {kept}
        found += [made[k] for k in sorted(wanted) if len(k) > 1 and made[k].usable]
    return found


def _whole_model(trial: Tried) -> bool:
    needs = catalogue.entry(trial.system.kind, trial.system.method).needs
    return "weights" in needs.gives and trial.system.method != "lora"


def _soup(part: Part, ingredients: Sequence[Tried], run: Run) -> Tried:
    """Average the ingredients' weights in each cell that all have, and predict its rows."""
    from headstart.execution.parts import soup_job, soup_of, tried

    system = soup_of([t.system for t in ingredients])
    cells = [(int(f["repeat"]), int(f["fold"])) for f in ingredients[0].folds]
    outcome = run.do([soup_job(part, system, [t.folders for t in ingredients], cells)], "combine")[0]
    return tried(part, system, [outcome])
