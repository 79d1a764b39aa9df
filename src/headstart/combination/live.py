"""A planned merge alive: one model in memory that answers with any weights, and what its models changed, on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.func import functional_call

from headstart.core import Passes, Refused, Seen, Target, Undeclared
from headstart.io import recipes
from headstart.io.adapted import reader
from headstart.io.recipes import link_of
from headstart.io.shards import Checkpoint
from headstart.io.stored_heads import Whole
from headstart.io.tensor_names import names_in_module
from headstart.numerics import stream
from headstart.numerics.inserts import Inserted, blocks
from headstart.numerics.learning import one_model
from headstart.numerics.made import FLOATS, Memory, Room, Tensors
from headstart.numerics.passes import Called, Link, called, looked, sites
from headstart.numerics.states import state

from .plans import Plan, check_words

if TYPE_CHECKING:
    import pyarrow as pa

    from headstart.io.model_folders import ModelFolder
    from headstart.numerics.inserts import Mixture
    from headstart.numerics.made import Made, Part

Array = np.ndarray[Any, Any]
Weights = Mapping[str, torch.Tensor]
Told = Callable[[int], None]
Ask = Callable[[dict[str, torch.Tensor], dict[str, torch.Tensor]], torch.Tensor]
LINKS_OF: Mapping[str, Link] = {  # by the type of a task
    "single_label": "softmax", "multi_label": "sigmoid", "regression": "identity", "tagging": "softmax",
}  # fmt: skip
GIVEN: Mapping[str, str] = {
    "softmax": "one class a row",
    "sigmoid": "several labels a row",
    "identity": "one number a row",
}
HELD_BYTES = 2 << 30  # of changes that are kept in memory; more are read again each time


@dataclass(frozen=True, eq=False, slots=True)
class TaskRows:
    """Rows of one task as a merge sees them. own: the model that the task comes from, None where it is new to all.

    unlabelled: more rows, for those who read no labels; they come after the others. link: what makes predictions of the
    logits of the head that answers.
    labels: as in `core.Rows`, None where none are known. columns: of the logits, one for each class, in order; none for
    numbers.
    """

    name: str
    inputs: pa.Table
    labels: Array | None
    columns: tuple[int, ...]
    metric: str
    own: int | None = None
    fingerprint: str = ""
    unlabelled: pa.Table | None = None
    link: Link = "softmax"

    def take(self, rows: Sequence[int]) -> TaskRows:
        at = [int(r) for r in rows]
        return replace(self, inputs=self.inputs.take(at), labels=None if self.labels is None else self.labels[at])


def task_rows(target: Target, plan: Plan, own: int | None = None) -> TaskRows:
    """The rows of a target that are not sealed, for a merge whose result gives the target's labels.

    own: number of the model whose head predicts it.
    """
    known = plan.models[own].labels if plan.apart and own is not None else plan.labels
    if plan.apart and own is None:
        raise Refused(
            f"every model keeps its own head, and `{target.name}` does not say whose it is",
            where=f"target `{target.name}`",
            fix=f"write it as {plan.models[0].name}=FILE",
        )
    columns = tuple(_column(c, known or (), target) for c in target.task.classes)
    predictor = plan.models[own] if plan.apart and own is not None else plan.donor
    return TaskRows(
        target.name, target.labelled.inputs, target.labelled.labels, columns, target.metric.name, own,
        target.fingerprint, target.unlabelled.inputs if len(target.unlabelled) else None,
        _link(predictor, known, target),
    )  # fmt: skip


def _link(model: ModelFolder, labels: Sequence[str] | None, target: Target) -> Link:
    """Of the head that predicts the target, which must be of the target's kind: its logits mean nothing else."""
    link = link_of(model.config, len(labels)) if labels is not None else LINKS_OF[target.task.type]
    many = labels is not None and link == "identity" and len(labels) > 1
    if link != LINKS_OF[target.task.type] or (many and not target.task.classes):
        gives = f"{len(labels or ())} numbers a row" if many else GIVEN[link]
        wanted = GIVEN[LINKS_OF[target.task.type]]
        raise Refused(
            f"the head of `{model.name}` gives {gives}, and the labels are {wanted}",
            where=f"target `{target.name}`",
            fix=f"name rows whose labels are {gives}, or models that give {wanted}; "
            "what a head gives is `problem_type` in the model's `config.json`",
        )
    return link


def _column(label: str, known: Sequence[str], target: Target) -> int:
    """Which output a class is: by its name, by its name in other case, or by its number where the labels have none."""
    for name in (label, f"LABEL_{label}"):
        if name in known:
            return known.index(name)
    folded = [k.casefold() for k in known]
    if folded.count(label.casefold()) == 1:
        return folded.index(label.casefold())
    raise Refused(
        f"`{label}` is no label of the models, which have {', '.join(f'`{k}`' for k in known[:6]) or 'none'}",
        where=f"target `{target.name}`",
        fix="name models that predict the target's labels, or give each model a target of its own: MODEL=FILE",
    )


class LiveMerge:
    """The models of a plan on rows of tasks; satisfies `core.MergeView`. Made by `alive`.

    labels: whether they may be read. One module is in memory, of the first model; weights are put into it by name.
    What the base has not, such as a new head, is no change of it: such tensors stay at the mean of the models.
    """

    def __init__(
        self, plan: Plan, tasks: Sequence[TaskRows], readers: Sequence[Checkpoint], *, labels: bool, told: Told
    ) -> None:
        self.plan, self._tasks, self._readers, self._labels, self._told = plan, tasks, readers, labels, told
        heads = {n for names in plan.apart.values() for n in names}
        merged = [m for m in plan.made if m.method is not None and m.name not in heads]
        self._made = {m.name: m for m in merged if plan.base is None or m.base is not None}
        self._fixed = self.merged([m for m in merged if m.name not in self._made])
        self._whole = _whole(plan)
        self._names = names_in_module(self._whole.module, plan.donor)
        self._kept: dict[str, tuple[torch.Tensor, list[torch.Tensor]]] = {}
        self._inputs = _inputs(tasks, labels)
        self._keys: dict[int, Sequence[tuple[int, bytes]]] = {}
        self._passes: dict[Any, list[dict[str, Passes]]] = {}

    def on(self, tasks: Sequence[TaskRows], *, labels: bool) -> LiveMerge:
        """The same models on other rows."""
        other = copy(self)
        other._tasks, other._labels, other._inputs = tasks, labels, _inputs(tasks, labels)
        other._keys, other._passes = {}, {}
        return other

    @property
    def models(self) -> Sequence[str]:
        return [m.name for m in self.plan.models]

    @cached_property
    def tensors(self) -> Sequence[str]:
        return list(self._made)

    @property
    def tasks(self) -> Sequence[str]:
        return [t.name for t in self._tasks]

    @property
    def fingerprints(self) -> Sequence[str]:
        return [t.fingerprint for t in self._tasks]

    def link(self, task: int) -> Link:
        return self._tasks[task].link

    def metric(self, task: int) -> str:
        return self._tasks[task].metric

    def rows(self, task: int) -> int:
        return int(self._inputs[task].num_rows)

    def columns(self, task: int) -> Sequence[int]:
        """Outputs of the model that are the task's classes, in order; none for numbers."""
        return self._tasks[task].columns

    def labels(self, task: int, rows: Sequence[int]) -> torch.Tensor:
        if not self._labels:
            raise Undeclared(
                "a merge read labels and declares that it needs none", where="`needs`", fix="declare labels=True"
            )
        found = self._tasks[task].labels
        if found is None:
            raise Refused(
                "no labels are known", where=f"target `{self._tasks[task].name}`", fix="name the label column"
            )
        return torch.from_numpy(np.asarray(found[list(rows)]))

    def own(self, task: int) -> int | None:
        return self._tasks[task].own

    def base(self, tensor: str) -> torch.Tensor:
        return self._both(tensor)[0]

    def changes(self, tensor: str) -> Sequence[torch.Tensor]:
        return self._both(tensor)[1]

    def shared(self, shares: Array) -> dict[str, torch.Tensor]:
        out = {}
        for i, name in enumerate(self.tensors):
            base, changes = self._both(name)
            total = base.clone()
            for share, change in zip(shares[i], changes, strict=True):
                if share:
                    total.add_(change, alpha=float(share))
            out[name] = total
        return out

    def depth(self, tensor: str) -> float | None:
        return self._made[tensor].depth

    def made(
        self, method: str, settings: Mapping[str, Any], own: Mapping[str, Mapping[str, Any]] | None = None
    ) -> dict[str, torch.Tensor]:
        from .merging import made_of

        each = {n: made_of(method, (own or {}).get(n, settings)) for n in self._made}
        return self.merged([replace(m, kind=each[n][0], method=each[n][1]) for n, m in self._made.items()])

    def merged(
        self, made: Sequence[Made], seed: int | None = None, more: Callable[[], bool] = lambda: True
    ) -> dict[str, torch.Tensor]:
        """What the stream makes of the models, each tensor rounded as it would be written, and then float32.

        seed: in place of the plan's. more: whether to go on, asked tile by tile; else raises `stream.Stopped`.
        """
        out = Memory({m.name: torch.empty(m.shape, dtype=FLOATS[m.dtype]) for m in made})
        stream.run(
            made, self._readers, out, seed=self.plan.seed if seed is None else seed, threads=torch.get_num_threads(),
            report=lambda _: more(),
        )  # fmt: skip
        return {n: t.float() for n, t in out.tensors.items()}

    def head(self, task: int) -> Weights:
        own = self.own(task)
        return self._heads[own] if self.plan.apart and own is not None else {}

    def blocks(self) -> list[tuple[tuple[str, ...], int]]:
        places, order = sites(self._whole.module), [n for n in self.called() if n in self._made]
        shapes = {}
        for name in order:
            first, second = self._made[name].shape
            shapes[name] = (first, second) if places[self._names[name]][1] else (second, first)
        both = {n: [one for one in (n, n.removesuffix("weight") + "bias") if one in self._made] for n in order}
        return [(tuple(t for n in one for t in both[n]), shapes[one[0]][0]) for one in blocks(order, shapes)]

    def logits(
        self, weights: Weights, task: int, rows: Sequence[int], mixtures: Sequence[Mixture] = ()
    ) -> torch.Tensor:
        each = {self._names[n]: self.changes(n) for m in mixtures for n in m.tensors}
        changes = [{n: found[i] for n, found in each.items()} for i in range(len(self.models))]
        placed = [replace(m, tensors=tuple(self._names[n] for n in m.tensors)) for m in mixtures]
        with Inserted(self._whole.module, placed, changes) as inserted:

            def ask(weights: dict[str, torch.Tensor], given: dict[str, torch.Tensor]) -> torch.Tensor:
                inserted.mask = given.get("attention_mask")
                found: torch.Tensor = functional_call(self._whole.module, weights, (), given).logits
                return found

            found, columns = _in_order(self._answers(weights, task, rows, ask)), self.columns(task)
        return found[:, list(columns)] if columns else found

    def features(self, weights: Weights, task: int, rows: Sequence[int]) -> torch.Tensor:
        """What goes into the last linear layer that is called."""
        seen: list[tuple[torch.Tensor, torch.Tensor]] = []

        def see(_: torch.nn.Module, x: tuple[torch.Tensor, ...], y: torch.Tensor) -> None:
            seen[:] = [(x[0], y)]

        hooks = [one.register_forward_hook(see) for one, _ in sites(self._whole.module).values()]
        try:
            answers = self._answers(weights, task, rows)
            return _in_order((some, _before_the_head(seen, logits)) for some, logits in answers)
        finally:
            for hook in hooks:
                hook.remove()

    def states(self, weights: Weights, task: int, rows: Sequence[int]) -> torch.Tensor:
        module = self._whole.module
        return _in_order(self._answers(weights, task, rows, lambda w, x: state(module, module.base_model, w, x)))

    def _answers(
        self, weights: Weights, task: int, rows: Sequence[int], ask: Ask | None = None
    ) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Batch by batch: which of the rows, and what is asked of the placed weights; else all outputs."""
        ask = ask or (lambda placed, given: functional_call(self._whole.module, placed, (), given).logits)
        one, at = self._tasks[task], list(rows)
        placed = self._placed(weights, one.own)
        for some in self._whole.batches([self.keys(task)[r] for r in at]):
            called = self._whole.called(self._inputs[task], [at[i] for i in some])
            yield list(some), ask(placed, called)
            self._told(len(some))

    def keys(self, task: int) -> Sequence[tuple[int, bytes]]:
        """Length and content of each row, by which batches are made."""
        if task not in self._keys:
            self._keys[task] = self._whole.encoder.keys(self._inputs[task])
        return self._keys[task]

    def passes(self, asks: Sequence[Seen], rows: int, draws: int = 8, seed: int = 0) -> list[dict[str, Passes]]:
        """What each model's passes over its own rows, or those of all tasks, show at each tensor. rows: the most."""
        key = (tuple(asks), rows, draws, seed)
        if key not in self._passes:
            self._passes[key] = [self._seen(m, asks, rows, draws, seed) for m in range(len(self.models))]
        return self._passes[key]

    def inputs(
        self, model: int, tensors: Sequence[str], merged: Weights, rows: int, seed: int = 0
    ) -> dict[str, Passes]:  # fmt: skip
        """Passes of one model, of what goes into some tensors' layers. merged: takes the place of its own weights."""
        return self._seen(model, ("inputs",), rows, 1, seed, merged, tensors)

    def called(self) -> list[str]:
        """Weights of linear layers, in the order in which a pass calls them."""
        placed = self._placed(self.shared(np.zeros((len(self.tensors), len(self.models)))), self._tasks[0].own)
        order = called(self._whole.module, placed, next(self._calls([0], 1, True, 0)))
        return [self._back[n] for n in order if n in self._back]

    def _seen(
        self, model: int, asks: Sequence[Seen], rows: int, draws: int, seed: int, merged: Weights | None = None,
        tensors: Sequence[str] | None = None,
    ) -> dict[str, Passes]:  # fmt: skip
        tasks = [t for t in range(len(self._tasks)) if self._tasks[t].own in (None, model)]
        if not tasks:
            raise Refused(
                f"no rows are named for `{self.models[model]}`",
                where="targets of the merge",
                fix=f"add --target {self.models[model]}=FILE",
            )
        placed = self._placed({**one_model(self, model), **(merged or {})}, self._tasks[tasks[0]].own)
        calls = self._calls(tasks, rows, any(a != "inputs" for a in asks), seed)
        only = None if tensors is None else {self._names[n] for n in tensors if n in self._names}
        found = looked(
            self._whole.module, placed, calls, asks, link=self.link(tasks[0]), draws=draws, seed=seed, only=only
        )
        return {self._back[n]: p for n, p in found.items() if n in self._back and (only is None or n in only)}

    @cached_property
    def _back(self) -> dict[str, str]:
        """Our names of the module's tensors."""
        return {theirs: ours for ours, theirs in self._names.items()}

    def _calls(self, tasks: Sequence[int], rows: int, single: bool, seed: int) -> Iterator[Called]:
        for task, some in self._chunks(tasks, rows, single, seed):
            called = self._whole.called(self._inputs[task], some)
            self._told(len(some))
            yield Called(called, called.get("attention_mask"))

    def _chunks(self, tasks: Sequence[int], rows: int, single: bool, seed: int) -> Iterator[tuple[int, list[int]]]:
        """Tasks, and which of their rows are read together."""
        for task in tasks:
            chosen = np.random.default_rng(seed).permutation(self.rows(task))[: max(1, rows // len(tasks))].tolist()
            size = 1 if single or self._whole.sees_padding else 16
            yield from ((task, chosen[i : i + size]) for i in range(0, len(chosen), size))

    def _placed(self, weights: Weights, own: int | None) -> dict[str, torch.Tensor]:
        """By the module's names, with the head of the model that a task comes from where each keeps its own."""
        head = self._heads[own] if self.plan.apart and own is not None else {}
        every = {**self._fixed, **head, **weights}
        known = ((self._names.get(n, n), w) for n, w in every.items() if n in self._names or n in head)
        return {n: w.detach() if n in self._statistics else w for n, w in known}

    @cached_property
    def _statistics(self) -> set[str]:
        """Buffers, such as running means, which have no gradients."""
        return {n for n, _ in self._whole.module.named_buffers()}

    @cached_property
    def _heads(self) -> list[dict[str, torch.Tensor]]:
        """Of each model, by the names of its folder."""
        by_name = {m.name: m for m in self.plan.made}
        heads = []
        for place, names in self.plan.apart.items():
            tensors = {n.removeprefix(f"{place}/").removeprefix(self.plan.donor.main): by_name[n] for n in names}
            heads.append({n: self._read(m, m.base or m.tuned[0]) for n, m in tensors.items()})
        return heads

    def _both(self, tensor: str) -> tuple[torch.Tensor, list[torch.Tensor]]:
        if tensor in self._kept:
            return self._kept[tensor]
        made = self._made[tensor]
        base = self._read(made, made.base) if made.base is not None else torch.zeros(made.shape)
        found = base, [self._read(made, part) - base for part in made.tuned]
        if self._holds:
            self._kept[tensor] = found
        return found

    @cached_property
    def _holds(self) -> bool:
        return 4 * sum(m.size for m in self._made.values()) * (1 + len(self.models)) <= HELD_BYTES

    def _read(self, made: Made, part: Part) -> torch.Tensor:
        room = Room()
        found = Tensors(made, self._readers).floats(part, 0, made.size, room, "all", np.float32)
        return torch.from_numpy(found).view(made.shape)


@contextmanager
def alive(
    plan: Plan, tasks: Sequence[TaskRows], *, labels: bool, told: Told | None = None, kind: type[LiveMerge] = LiveMerge
) -> Iterator[LiveMerge]:
    """The view of a plan, with the models' files open for as long as it lasts.

    told: is called with the number of rows whenever some have gone through the model. kind: of the view.
    """
    from contextlib import ExitStack

    with ExitStack() as stack:
        readers = [stack.enter_context(reader(f)) for f in plan.folders]
        yield kind(plan, tasks, readers, labels=labels, told=told or (lambda _: None))


def _inputs(tasks: Sequence[TaskRows], labels: bool) -> list[pa.Table]:
    """Of those who read no labels, all rows."""
    import pyarrow as pa

    return [t.inputs if labels or t.unlabelled is None else pa.concat_tables([t.inputs, t.unlabelled]) for t in tasks]


def _whole(plan: Plan) -> Whole:
    check_words(plan)
    recipe = recipes.read(plan.donor.where)
    if recipe.head is None:
        raise Refused(
            f"`{plan.donor.name}` has no head for whole rows, so it predicts nothing that rows could tell about",
            where=f"model `{plan.donor.where}`",
            fix="name classifiers, or merge with a method that reads no rows",
        )
    return Whole(recipe)


def _in_order(answers: Iterable[tuple[list[int], torch.Tensor]]) -> torch.Tensor:
    """Batches as one table, each row at its place."""
    rows, parts = zip(*answers, strict=True)
    return torch.cat(parts)[torch.argsort(torch.tensor([r for some in rows for r in some]))]


def _before_the_head(seen: Sequence[tuple[torch.Tensor, torch.Tensor]], logits: torch.Tensor) -> torch.Tensor:
    """(rows, width) of what went into the layer that gave the logits. seen: the last layer's inputs and outputs."""
    if not seen or seen[0][1].shape != logits.shape:
        raise Refused(
            "the last layer that is called is no linear one that gives the labels",
            where="features of the models",
            fix="use a method that reads logits only",
        )
    return seen[0][0]
