"""The search for numbers of a recipe: by evolution of a normal distribution, by the loss on labelled rows.

Akiba, Shing, Tang, Sun and Ha, "Evolutionary Optimization of Model Merging Recipes", Nature Machine Intelligence 2025.

A trial plans the recipe anew with its numbers. Where the result has the tensors of the model that gives it its
configuration, it is made in memory, into one model that stays there. Where it has others, such as more layers, every
trial is written to a temporary folder in the cache, and read from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import inf, isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from headstart import catalogue
from headstart.core import Refused, Unfit

if TYPE_CHECKING:
    import torch

    from headstart.execution.meter import Meter

    from .live import LiveMerge, TaskRows
    from .plans import Plan
    from .ranges import Range

TRIALS = 60  # where neither minutes nor trials are given
Tell = Callable[[str, str], None]
Values = Mapping[str, float]
Judge = Callable[["Plan"], tuple[float, float]]  # mean loss, and score, of what a plan makes


@dataclass(frozen=True, eq=False, slots=True)
class Search:
    """What is open in a recipe. planned: the plan with numbers in place of the ranges; text: the recipe with them."""

    ranges: tuple[Range, ...]
    planned: Callable[[Values], Plan]
    text: Callable[[Values], str]

    @property
    def start(self) -> dict[str, float]:
        return {r.name: r.start for r in self.ranges}


def none_named(search: Search) -> Refused:
    """What a search without rows is told."""
    count = len(search.ranges)
    return Refused(
        f"{count} {'numbers' if count > 1 else 'number'} of the recipe, `{search.ranges[0].name}` first, "
        f"{'are' if count > 1 else 'is'} to be found on rows, and none are named",
        where="merge of a recipe with ranges",
        fix="add --target FILE and --label COLUMN, or write numbers in place of the ranges",
    )


def found(plan: Plan, tasks: Sequence[TaskRows], meter: Meter, tell: Tell = lambda *_: None) -> Plan:
    """The plan with the best numbers that were tried, the start among them.

    tasks: rows to search by. meter: its minutes and trials bound the search; the next trial begins where twice the time
    of the longest is left, so that the result can be written. Ctrl-C ends it too, after the first trial, as is told.
    """
    from headstart.numerics.blind_search import minimised

    search = plan.search
    assert search is not None  # asked before
    if not tasks:
        raise none_named(search)
    _check_packages()
    trials: list[dict[str, Any]] = []
    longest, stopped = [0.0], None
    with _judge(plan, tasks) as judge:

        def cost(shares: dict[str, float]) -> float:
            began, values = meter.session(), {r.name: r.at(shares[r.name]) for r in search.ranges}
            meter.start_trial(f"{len(trials)}")
            try:
                loss, score = judge(search.planned(values))
            except Unfit as problem:  # numbers that a method does not take together
                if not trials:
                    raise
                trials.append({"values": values, "refused": problem.what})
                return inf
            trials.append({"values": values, "loss": loss, "score": score})
            longest[0] = max(longest[0], meter.session() - began)
            tell(f"trial {len(trials)}", f"best loss {min(map(_loss, trials)):.4g}")
            return loss

        def more() -> bool:
            return meter.trials_left >= 1 and meter.remaining() > 2 * longest[0]

        bound = meter.budget.trials is not None or meter.remaining() < inf
        space, middle = {r.name: (0.0, 1.0) for r in search.ranges}, {r.name: 0.5 for r in search.ranges}
        try:
            minimised(cost, space, middle, None if bound else TRIALS - 1, plan.seed, more)
        except KeyboardInterrupt:
            if not trials:
                raise
            stopped = "interrupt"
    best = min(trials, key=_loss)["values"]
    facts = {
        "ranges": [{"name": r.name, "low": r.low, "high": r.high, "start": r.start} for r in search.ranges],
        "values": best, "made_in": made_in(plan), "metric": tasks[0].metric, "trials": trials, "stopped": stopped,
    }  # fmt: skip
    learned = {"searched": facts, "tasks": [t.fingerprint for t in tasks]}
    return _told(search.planned(best), learned, search.text(best))


def _loss(trial: Mapping[str, Any]) -> float:
    """Of a trial; infinite where it was refused, or is no number."""
    loss = float(trial.get("loss", inf))
    return inf if isnan(loss) else loss


def _told(plan: Plan, learned: Mapping[str, Any], text: str) -> Plan:
    """The plan, and the one that follows once the models before it lie on the disk, with what the search came to."""
    told = replace(plan, learned=learned, texts={**plan.texts, "recipe.yaml": text})
    again = plan.again
    return told if again is None else replace(told, again=lambda made: _told(again(made), learned, text))


def made_in(plan: Plan) -> Literal["memory", "folders"]:
    """Where trials are made."""
    from .heads import head_of

    own = {name for names in plan.apart.values() for name in names}
    head = head_of(plan.donor) if plan.apart else ()
    made = {m.name: m.shape for m in plan.made if m.name not in own}
    same = made == {n: e.shape for n, e in plan.donor.tensors.items() if n not in head}
    told = all(plan.donor.config.get(key) == value for key, value in plan.config.items())
    words = plan.words is None or plan.donor.name not in plan.words.rows
    return "memory" if same and told and words and not plan.before else "folders"


@contextmanager
def _judge(plan: Plan, tasks: Sequence[TaskRows]) -> Iterator[Judge]:
    from headstart.numerics.learning import judged

    from .live import alive

    if made_in(plan) == "memory":
        with alive(plan, tasks, labels=True) as view:
            yield lambda made: judged(view, _weights(view, made))
        return
    import tempfile

    from headstart.io.places import cache_folder

    cache_folder().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="trials-", dir=cache_folder().parent) as folder:
        yield lambda made: _judged_on_disk(made, tasks, Path(folder))


def _weights(view: LiveMerge, plan: Plan) -> dict[str, torch.Tensor]:
    """All that the plan makes, but for heads that stay with their models."""
    from headstart.numerics.made import FLOATS

    own = {name for names in plan.apart.values() for name in names}
    return view.merged([m for m in plan.made if m.dtype in FLOATS and m.name not in own], plan.seed)


def _judged_on_disk(plan: Plan, tasks: Sequence[TaskRows], folder: Path) -> tuple[float, float]:
    """Of each model that is written, the tasks that it predicts; means over all of them."""
    import numpy as np

    from headstart.numerics.learning import judged

    from .live import alive
    from .merging import carried_out, planned

    trial = folder / "trial"
    made = carried_out(plan, trial, overwrite=True, check=not trial.exists()).where  # the others have the same tensors
    of = list(plan.apart).index
    each = []
    for place in plan.apart or [""]:
        mine = [t for t in tasks if not plan.apart or t.own == of(place)]
        if mine:
            one = planned([made / place], "linear")
            with alive(one, mine, labels=True) as view:
                each += len(mine) * [judged(view, _weights(view, one))]
    loss, score = np.mean(each, axis=0)
    return float(loss), float(score)


def _check_packages() -> None:
    same = catalogue.entry("combination.learning", "evolve")
    if reason := catalogue.missing(same):
        raise Refused(
            f"numbers of a recipe are searched as `evolve` does, and {reason}",
            where="merge of a recipe with ranges",
            fix=catalogue.install_hint(same),
        )
