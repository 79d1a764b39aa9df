"""A merge with parts that stay apart, ready to predict: one model in memory, to which experts are added as needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.func import functional_call

from headstart.core import Refused, Unfit
from headstart.numerics.artifacts import linked
from headstart.numerics.delta import Delta, Form, Picked, applied, dense, part_of
from headstart.numerics.delta import Whole as Replaced
from headstart.numerics.inserts import Inserted, Mixture
from headstart.numerics.passes import Called, called, sites
from headstart.numerics.states import state

from . import deltas, recipes, routing_files
from .artifacts import damaged
from .recipes import StoredHead
from .stored_heads import Whole
from .tensor_names import names_in_module

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False, slots=True)
class Answer:
    """Predictions of the rows of one task. rows: their numbers. values: (rows, labels), probabilities or numbers."""

    task: int
    rows: Array
    values: Array


class RoutedModel:
    """A folder that a merge with parts apart made. Memory: the model, and one copy of what an expert changes."""

    def __init__(self, where: str | Path) -> None:
        self.parts = routing_files.read(where)
        first, *_ = self.parts.models
        self._whole = Whole(recipes.read(first.where))
        self._names = names_in_module(self._whole.module, first)
        self._own = dict(self._whole.module.named_parameters()) | dict(self._whole.module.named_buffers())
        self.heads = [self._head(m.where) for m in self.parts.models]
        self._last = ""  # name of the last layer's weight, once a pass has shown it
        self._check()

    @property
    def tasks(self) -> list[str]:
        return [t.name for t in self.parts.manifest.tasks]

    def _head(self, where: Path) -> StoredHead:
        head = recipes.read(where).head
        if head is None:
            raise Unfit("there is no head that gives labels", where=f"model `{where}`", fix="merge again")
        return head

    def _check(self) -> None:
        """Everything that is put into the module has a place there, whichever task it is of."""
        for task, model in zip(self.parts.manifest.tasks, self.parts.models, strict=True):
            for name in task.head:
                if name not in self._names:
                    raise damaged(model.where, f"tensor `{name}` has no place in the model")
        layers = {n.removesuffix("weight"): layer for n, layer in sites(self._whole.module).items()}
        for mixture in self.parts.mixtures:
            parts = [self._names.get(n, "").rpartition(".") for n in mixture.tensors]
            if not parts or any(a + b not in layers or part not in ("weight", "bias") for a, b, part in parts):
                raise damaged(self.parts.where, "a block that is mixed is none of linear layers of the model")
            layer = "".join(parts[0][:2])
            width = self._own[f"{layer}weight"].shape[0 if layers[layer][1] else 1]
            if mixture.layers[0][0].shape[1] != width:
                raise damaged(self.parts.where, f"gates do not fit what goes into a block, which is {width} wide")

    def predict(self, inputs: pa.Table, task: str | None = None) -> list[Answer]:
        """Every row by the expert and the head of its task. task: of all rows; None lets the router say, row by row.

        Rows of equal experts go together; which rows else are asked for changes nothing.
        """
        self.check_task(task)
        weights = self._named(task, inputs.num_rows) if task is not None else self.routed(inputs)
        owners = weights.argmax(axis=1)
        out: list[Answer] = []
        for number in range(len(self.tasks)):
            rows = np.flatnonzero(owners == number)
            if len(rows):
                out.append(Answer(number, rows, self._values(inputs, number, rows, weights[rows])))
        return out

    def table(self, inputs: pa.Table, classes: Sequence[str], task: str | None = None) -> tuple[Array, tuple[str, ...]]:
        """(rows, classes) predictions by the names of labels, 0 for those of other tasks; and the task of each row."""
        out, tasks = np.zeros((inputs.num_rows, len(classes))), [""] * inputs.num_rows
        for answer in self.predict(inputs, task):
            columns = np.array([classes.index(label) for label in self.heads[answer.task].labels])
            out[np.ix_(answer.rows, columns)] = answer.values
            for row in answer.rows.tolist():
                tasks[row] = self.tasks[answer.task]
        return out, tuple(tasks)

    def check_task(self, task: str | None) -> None:
        """Raises `Unfit` for a task that is not there, and `Refused` for none where there is no router."""
        if task is None and self.parts.router is None:
            raise Refused(
                f"`{self.parts.manifest.method}` has learned no router, so it must be said whose task the rows are of",
                where=f"`{self.parts.where}`",
                fix=f"name one of: {', '.join(self.tasks)}",
            )
        if task is not None and task not in self.tasks:
            raise Unfit(f"there is no task `{task}`", where="task", fix=f"name one of: {', '.join(self.tasks)}")

    def routed(self, inputs: pa.Table) -> Array:
        """(rows, tasks) how much of each expert a row gets, by the router on the shared model's states."""
        router = self.parts.router
        assert router is not None  # `check_task` refuses what has none
        out = np.zeros((inputs.num_rows, router.experts))
        module = self._whole.module
        for rows, given in self._batches(inputs, range(inputs.num_rows)):
            with torch.inference_mode():
                found = state(module, module.base_model, {}, given)
                if found.shape[1] != len(router.mean):
                    raise damaged(
                        self.parts.where / routing_files.PLACE / routing_files.ROUTER,
                        f"it reads {len(router.mean)} numbers of an input, and the model gives {found.shape[1]}",
                    )
                out[rows] = router.weights(found).double().numpy()
        return out

    def _named(self, task: str, rows: int) -> Array:
        out = np.zeros((rows, len(self.tasks)))
        out[:, self.tasks.index(task)] = 1
        return out

    def _values(self, inputs: pa.Table, task: int, rows: Array, weights: Array) -> Array:
        head = self.heads[task]
        out = np.zeros((len(rows), len(head.labels)))
        kinds, which = np.unique(weights, axis=0, return_inverse=True)
        for kind in range(len(kinds)):
            at = np.flatnonzero(which.reshape(-1) == kind)
            placed = self.placed(task, kinds[kind].tolist())
            for some, given in self._batches(inputs, rows[at].tolist()):
                with torch.inference_mode(), self._inserted(task, placed, given):
                    logits = functional_call(self._whole.module, placed, (), given).logits
                out[at[some]] = linked(logits.double().numpy(), head.link)
        return out

    def _inserted(self, task: int, placed: Mapping[str, torch.Tensor], given: dict[str, torch.Tensor]) -> Inserted:
        """What a task's rows go through between the layers; nothing for most merges."""
        correction = self.parts.corrections[task]
        if correction is not None:
            self._last = self._last or called(self._whole.module, placed, Called(given))[-1]
            if placed[self._last].shape[-1] != len(correction.up):
                raise damaged(self.parts.where, f"the correction of `{self.tasks[task]}` does not fit its head")
        mask = given.get("attention_mask")
        return Inserted(self._whole.module, self._mixtures, self._mixed, correction, self._last, mask)

    @cached_property
    def _mixtures(self) -> list[Mixture]:
        """With the module's names."""
        return [replace(m, tensors=tuple(self._names[n] for n in m.tensors)) for m in self.parts.mixtures]

    @cached_property
    def _mixed(self) -> list[dict[str, torch.Tensor]]:
        """What each expert changes in the blocks that are mixed, by the module's names."""
        out: list[dict[str, torch.Tensor]] = []
        for expert in self.parts.experts:
            changes = expert.changes if expert is not None else {}
            having = [(self._names[n], form) for n, form in changes.items() if n in self._blocks]
            out.append({place: dense(form, self._own[place].detach()) for place, form in having})
        return out

    @cached_property
    def _blocks(self) -> set[str]:
        return {n for m in self.parts.mixtures for n in m.tensors}

    def placed(self, task: int, weights: Sequence[float]) -> dict[str, torch.Tensor]:
        """By the module's names, what differs from it: a task's head, and the shared weights with experts added.

        What an expert changes in its own head is taken whole, and of no other task. Blocks that are mixed stay shared.
        """
        own, model, expert = self.parts.manifest.tasks[task], self.parts.models[task], self.parts.experts[task]
        out = {self._names[n]: deltas.tensor(model, n).float() for n in own.head}
        for name in (n for n in own.head if expert is not None and n in expert.changes):
            assert expert is not None
            out[self._names[name]] = applied(expert.changes[name], out[self._names[name]])
        used = [(self._changes(e), w) for e, w in zip(self.parts.experts, weights, strict=True) if e is not None and w]
        apart = self._blocks.union(*(t.head for t in self.parts.manifest.tasks))
        for name in dict.fromkeys(n for changes, _ in used for n in changes if n not in apart):
            place = self._names[name]
            before = self._own[place].detach()
            having = [(changes[name], w) for changes, w in used if name in changes]
            if len(used) == 1:
                out[place] = applied(having[0][0], before)
            else:
                mixed = [w * dense(form, before) for form, w in having if not isinstance(form, Replaced)]
                out[place] = before + torch.stack(mixed).sum(dim=0)
        return out

    def _changes(self, expert: Delta) -> dict[str, Form]:
        """With the parts of the common change in the place of what picks them."""
        common = self.parts.common.changes if self.parts.common is not None else {}
        return {n: part_of(f, dense(common[n])) if isinstance(f, Picked) else f for n, f in expert.changes.items()}

    def _batches(self, inputs: pa.Table, rows: Sequence[int]) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
        """(places in `rows`, what the module is called with)"""
        keys = self._whole.encoder.keys(inputs)
        for some in self._whole.batches([keys[r] for r in rows]):
            yield some, self._whole.called(inputs, [rows[i] for i in some])
