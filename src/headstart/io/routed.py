"""A merge with parts that stay apart, ready to predict: one model in memory, to which experts are added as needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
from headstart.numerics.states import state

from . import deltas, recipes, routing_files
from .artifacts import damaged
from .encoders import batches
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
        for rows, called in self._batches(inputs, range(inputs.num_rows)):
            with torch.inference_mode():
                found = state(module, module.base_model, {}, called)
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
            for some, called in self._batches(inputs, rows[at].tolist()):
                with torch.inference_mode():
                    logits = functional_call(self._whole.module, placed, (), called).logits
                out[at[some]] = linked(logits.double().numpy(), head.link)
        return out

    def placed(self, task: int, weights: Sequence[float]) -> dict[str, torch.Tensor]:
        """By the module's names, what differs from it: a task's head, and the shared weights with experts added."""
        own, model = self.parts.manifest.tasks[task], self.parts.models[task]
        out = {self._names[n]: deltas.tensor(model, n).float() for n in own.head}
        used = [(self._changes(e), w) for e, w in zip(self.parts.experts, weights, strict=True) if e is not None and w]
        for name in dict.fromkeys(n for changes, _ in used for n in changes):
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
        for some in batches([keys[r] for r in rows]):
            yield some, self._whole.called(inputs, [rows[i] for i in some])
