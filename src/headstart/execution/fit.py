"""The training loop: an encoder and a linear head, on one fold, in steps that can be stopped and taken up again.

Plain torch rather than accelerate: the loop runs the source's own `forward_features` (not `module.forward`, which
accelerate wraps), and accelerate keeps state for the whole process, which in-process runs share with the user's own
program. Data parallel training on many devices is what is given up.

The same bits come out for the same rows, seed and threads: the order of batches is a function of seed and epoch, and
dropout of seed and step, so that a run taken up from its `State` equals one that was never interrupted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from math import ceil
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from headstart.core import METRICS, Encoder, FitView, State, Steps, TaskType, Unfit
from headstart.numerics import metrics
from headstart.numerics.artifacts import Head, Link
from headstart.numerics.inner import inner_folds
from headstart.numerics.linear import folded, standard, unfolded
from headstart.numerics.row_gradients import eval_mode

if TYPE_CHECKING:
    import pyarrow as pa

Array = np.ndarray[Any, Any]
Start = Callable[[Array, Array, Sequence[str]], Head]  # (features, labels, ids) of the rows to train on -> first head

LINKS: dict[TaskType, Link] = {"single_label": "softmax", "multi_label": "sigmoid", "regression": "identity"}
MARKS = 10  # points of the schedule at which the loss is noted and the inner rows are scored
PATIENCE = 3  # marks without a better inner score, after which early stopping ends the training
LEAST_ROWS_PER_CLASS = 20  # below, no early stopping: an inner split would be noise
LEAST_ROWS_OF_NUMBERS = 100  # the same for regression
BATCH_NORM_ROWS = 500  # with fewer rows, batch normalisation keeps the statistics of the source


def _never() -> bool:
    return False


def _silent(step: int, horizon: int) -> None:
    del step, horizon


# set by whoever runs a fitting; polled, or called, at every step boundary
STOP: ContextVar[Callable[[], bool]] = ContextVar("stop", default=_never)
PROGRESS: ContextVar[Callable[[int, int], None]] = ContextVar("progress", default=_silent)


class Stopped(Exception):
    """The soft stop was asked for; the training ended at the boundary after this many steps."""

    def __init__(self, step: int) -> None:
        super().__init__(step)
        self.step = step


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Settings of the loop.

    learning_rate: of the deepest layer's neighbour, the head, before `head_rate`. layer_decay: a layer at depth d below
    the head learns at learning_rate × layer_decay^d; 1 is flat, 0 trains the head alone. warmup: fraction of the
    schedule in which the rate rises, before it falls to 0, both in straight lines. weight_decay: of matrices only.
    epochs, least_steps: the default horizon. batch_rows: rows of one optimiser step. token_budget: the most tokens
    that go through the encoder at once; a batch above it is run in parts, with the same gradient.
    """

    learning_rate: float = 1e-4
    layer_decay: float = 0.75
    head_rate: float = 1.0
    weight_decay: float = 0.01
    warmup: float = 0.1
    epochs: int = 6
    least_steps: int = 60
    batch_rows: int = 16
    token_budget: int = 4096
    clip: float = 1.0

    def per_epoch(self, rows: int) -> int:
        return max(1, ceil(rows / self.batch_rows))

    def horizon(self, rows: int) -> int:
        """Steps of the whole schedule for this many rows, where the caller gives none."""
        return max(self.least_steps, self.epochs * self.per_epoch(rows))

    def rate(self, step: int, horizon: int) -> float:
        """The factor of the learning rate in a step, counted from 0.

        >>> [Recipe(warmup=0.5).rate(s, 4) for s in range(4)]
        [0.5, 1.0, 1.0, 0.5]
        """
        warm = self.warmup * horizon
        return min((step + 1) / warm if warm > 0 else 1.0, (horizon - step) / max(horizon - warm, 1.0), 1.0)


@dataclass(frozen=True, eq=False, slots=True)
class Trained:
    """What `train` returns: as `Fitted`, with the head apart; the encoder holds the tensors."""

    head: Head
    predictions: Array
    state: State | None
    curve: tuple[tuple[int, float, float | None], ...]
    fraction: float
    facts: Mapping[str, Any] = field(default_factory=dict)


def features(encoder: Encoder, inputs: pa.Table, *, token_budget: int = 8192, step: int = 0) -> Array:
    """(rows, width) float32 in eval mode: rows sorted by length, batches by token budget, results in row order.

    Raises `Stopped` between batches when the soft stop is asked for; `step` is what it then says.
    """
    out = np.zeros((inputs.num_rows, encoder.width), dtype=np.float32)
    if not inputs.num_rows:
        return out
    with eval_mode(encoder.module), torch.inference_mode():
        for rows in _by_budget(list(range(inputs.num_rows)), encoder.costs(inputs), token_budget):
            poll(step)
            out[rows] = encoder.forward_features(encoder.collate(inputs, rows)).float().cpu().numpy()
    return out


def unfreeze(encoder: Encoder) -> None:
    """Let all parameters of the encoder's layers train, and no other."""
    named = {name for layer in encoder.layers for name in layer}
    for name, p in encoder.module.named_parameters():
        p.requires_grad_(name in named)


def inner_split(view: FitView, early_stop: bool) -> tuple[list[int], list[int]]:
    """Training rows to fit on, and those (a fifth) that early stopping scores; none where there are too few."""
    labels = np.asarray(view.train.labels)
    everything = list(range(len(labels)))
    if view.task == "regression":
        enough = len(labels) >= LEAST_ROWS_OF_NUMBERS
    else:
        counts = labels.sum(axis=0) if labels.ndim == 2 else np.bincount(labels, minlength=view.classes)
        enough = bool(counts[counts > 0].min(initial=len(labels)) >= LEAST_ROWS_PER_CLASS)
    if not (early_stop and enough):
        return everything, []
    folds = inner_folds(view.train.ids, labels, 5)
    return [i for i in everything if folds[i]], [i for i in everything if not folds[i]]


def train(encoder: Encoder, view: FitView, start: Start, recipe: Recipe, state: State | None, steps: Steps) -> Trained:
    """Train what `requires_grad` in the encoder's module, and a head, from `start` or from `state`.

    The head works on features standardised with the statistics of the untouched encoder, numbers are standardised
    too, and both are folded back at the end. With early stopping the encoder ends at its best mark; else at the last
    step. fraction: where on the schedule that is. Float32; gradients are clipped to a global norm.
    Raises `Stopped` at a step boundary, `Unfit` when `state` belongs to another schedule.
    """
    with torch.random.fork_rng():
        return _Run(encoder, view, recipe, steps).whole(start, state)


def throughput(encoder: Encoder, view: FitView, recipe: Recipe | None = None) -> float:
    """Seconds of one step of full fine-tuning, measured on the second of two batches; no weight changes.

    Routes that train fewer weights take less.
    """
    plan = recipe or Recipe()
    module = encoder.module.float()
    inputs = view.train.inputs
    asked = [p for p in module.parameters() if p.dtype.is_floating_point]
    needed = [p.requires_grad for p in asked]
    with torch.random.fork_rng(), _train_mode(module, 0):
        torch.manual_seed(view.seed)
        for p in asked:
            p.requires_grad_(True)
        optimiser = torch.optim.AdamW(asked, lr=0.0, weight_decay=0.0, fused=True)
        costs, seconds = encoder.costs(inputs), 0.0
        order = [int(i) for i in np.random.default_rng(view.seed).permutation(inputs.num_rows)]
        for at in range(2):
            rows = (order * 2)[at * plan.batch_rows % len(order) :][: min(plan.batch_rows, len(order))]
            began = perf_counter()
            for part in _by_budget(rows, costs, plan.token_budget):
                encoder.forward_features(encoder.collate(inputs, part)).square().sum().backward()  # type: ignore[no-untyped-call]  # torch
            torch.nn.utils.clip_grad_norm_(asked, plan.clip)
            optimiser.step()
            optimiser.zero_grad()
            seconds = perf_counter() - began
        for p, need in zip(asked, needed, strict=True):
            p.requires_grad_(need)
    return seconds


class _Run:
    """One call of `train`: the rows, the head on standardised features, the optimiser and what has been noted."""

    def __init__(self, encoder: Encoder, view: FitView, recipe: Recipe, steps: Steps) -> None:
        self.encoder, self.view, self.recipe, self.steps = encoder, view, recipe, steps
        self.module = encoder.module.float()
        self.link = LINKS[view.task]
        self.fit, self.inner = inner_split(view, steps.early_stop)
        self.inputs, self.labels = view.train.inputs, np.asarray(view.train.labels)
        self.horizon = recipe.horizon(len(self.fit)) if steps.horizon is None else steps.horizon
        self.last = min(self.horizon, ceil(steps.until * self.horizon - 1e-9))
        self.costs = encoder.costs(self.inputs)
        self.held = self.inputs.take(self.inner) if self.inner else self.inputs.slice(0, 0)
        self.trained = {n: p for n, p in self.module.named_parameters() if p.requires_grad}
        self.marks = sorted({ceil(self.horizon * i / MARKS) for i in range(1, MARKS + 1)})
        self.curve: list[tuple[int, float, float | None]] = []
        self.step, self.loss, self.since = 0, 0.0, 0  # losses summed since the last mark, and their number
        self.best: dict[str, torch.Tensor] = {}
        self.best_step, self.best_score, self.worse, self.done = 0, (-np.inf, -np.inf), 0, False
        self._order: tuple[int, list[list[int]]] = (-1, [])

    def whole(self, start: Start, state: State | None) -> Trained:
        self._begin(start) if state is None else self._restore(state)
        while self.step < self.last and not self.done:
            poll(self.step)
            self._one_step()
            PROGRESS.get()(self.step, self.horizon)
            if self.step in self.marks:
                self._mark()
        state = self._state() if self.steps.until < 1 else None
        fraction = self.step / self.horizon if self.horizon else 1.0
        if self.inner:
            self._load(self.best)
            fraction = self.best_step / self.horizon if self.horizon else 1.0
        head = self._folded()
        rows = self.view.valid.inputs
        facts = {
            "steps": self.step,
            "horizon": self.horizon,
            "rows": len(self.fit),
            "inner_rows": len(self.inner),
            "trained": sum(p.numel() for p in self.trained.values()) + head.weight.size + head.bias.size,
        }
        predictions = head(features(self.encoder, rows, step=self.step))
        return Trained(head, predictions, state, tuple(self.curve), fraction, facts)

    def _begin(self, start: Start) -> None:
        labels = self.labels[self.fit]
        ids = [self.view.train.ids[i] for i in self.fit]
        poll(0)
        seen = self.view.train.features[self.fit]  # of the untouched encoder, which may be known already
        self.centre, self.scale = standard(seen)
        numbers = self.link == "identity"
        self.mean = float(labels.mean()) if numbers else 0.0
        self.spread = float(labels.std()) or 1.0 if numbers else 1.0
        weight, bias = unfolded(start(seen, labels, ids), self.centre, self.scale)
        self._prepare(torch.from_numpy(weight / self.spread), torch.from_numpy((bias - self.mean) / self.spread))
        if self.inner:
            self._score()

    def _prepare(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        device = next(self.module.parameters()).device
        self.weight = torch.nn.Parameter(weight.float().to(device))
        self.bias = torch.nn.Parameter(bias.float().to(device))
        self.shift = torch.from_numpy(self.centre).float().to(device)
        self.factor = torch.from_numpy(1 / self.scale).float().to(device)
        depth = {n: d for d, names in enumerate(reversed(self.encoder.layers), start=1) for n in names}
        groups = []
        for name, p in self.trained.items():
            rate = self.recipe.learning_rate * self.recipe.layer_decay ** depth.get(name, 1)
            groups.append(self._group(p, rate))
        for p in (self.weight, self.bias):
            groups.append(self._group(p, self.recipe.learning_rate * self.recipe.head_rate))
        self.optimiser = torch.optim.AdamW(groups, fused=True)

    def _group(self, p: torch.nn.Parameter, rate: float) -> dict[str, Any]:
        return {"params": [p], "rate": rate, "lr": rate, "weight_decay": self.recipe.weight_decay * (p.ndim > 1)}

    def _one_step(self) -> None:
        rows = self._batch()
        torch.manual_seed(_seed(self.view.seed, "dropout", self.step))
        for group in self.optimiser.param_groups:
            group["lr"] = group["rate"] * self.recipe.rate(self.step, self.horizon)
        with _train_mode(self.module, len(self.fit)):
            for part in _by_budget(rows, self.costs, self.recipe.token_budget):
                found = self.encoder.forward_features(self.encoder.collate(self.inputs, part))
                loss = self._loss(self._logits(found), self.labels[part]) / len(rows)
                loss.backward()  # type: ignore[no-untyped-call]  # torch
                self.loss += loss.item()
        everything = [*self.trained.values(), self.weight, self.bias]
        torch.nn.utils.clip_grad_norm_(everything, self.recipe.clip)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.step, self.since = self.step + 1, self.since + 1

    def _logits(self, found: torch.Tensor) -> torch.Tensor:
        return F.linear((found.float() - self.shift) * self.factor, self.weight, self.bias)

    def _loss(self, logits: torch.Tensor, labels: Array) -> torch.Tensor:
        """Summed over rows."""
        truth = torch.as_tensor(labels, device=logits.device)
        if self.link == "identity":
            return F.mse_loss(logits[:, 0], ((truth - self.mean) / self.spread).float(), reduction="sum")
        if self.link == "sigmoid":
            return F.binary_cross_entropy_with_logits(logits, truth.float(), reduction="sum")
        return F.cross_entropy(logits, truth, reduction="sum")

    def _batch(self) -> list[int]:
        per_epoch = self.recipe.per_epoch(len(self.fit))
        epoch, at = divmod(self.step, per_epoch)
        if self._order[0] != epoch:
            order = np.random.default_rng(_seed(self.view.seed, "order", epoch)).permutation(self.fit)
            self._order = epoch, [[int(i) for i in part] for part in np.array_split(order, per_epoch)]
        return self._order[1][at]

    def _mark(self) -> None:
        score = self._score() if self.inner else None
        self.curve.append((self.step, self.loss / max(self.since, 1), score))
        self.loss, self.since = 0.0, 0

    def _score(self) -> float:
        """Score the inner rows: by the metric, and of equals by the loss; keep the weights where that is the best."""
        labels = self.labels[self.inner]
        table = self._folded()(features(self.encoder, self.held, step=self.step))
        value = METRICS[self.view.metric].sign * metrics.value(self.view.metric, labels, table)
        score = value, -float(metrics.row_losses(self.view.metric, labels, table).mean())
        if score > self.best_score:
            self.best, self.best_step, self.best_score, self.worse = self._weights(), self.step, score, 0
        else:
            self.worse += 1
            self.done = self.worse >= PATIENCE
        return float(value)

    def _folded(self) -> Head:
        weight = self.weight.detach().double().cpu().numpy() * self.spread
        bias = self.bias.detach().double().cpu().numpy() * self.spread + self.mean
        return folded(weight, bias, self.centre, self.scale, self.link)

    def _weights(self) -> dict[str, torch.Tensor]:
        """Copies of everything that training can change."""
        return {k: v.detach().clone() for k, v in self._places().items()}

    def _places(self) -> dict[str, torch.Tensor]:
        inside: dict[str, torch.Tensor] = {**self.trained, **dict(self.module.named_buffers())}
        return {**{f"module/{n}": t for n, t in inside.items()}, "head/weight": self.weight, "head/bias": self.bias}

    def _load(self, weights: Mapping[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, place in self._places().items():
                place.copy_(weights[name])

    def _state(self) -> State:
        tensors = {f"now/{k}": v for k, v in self._weights().items()}
        tensors |= {f"best/{k}": v for k, v in self.best.items()}
        tensors |= {"head/centre": torch.from_numpy(self.centre), "head/scale": torch.from_numpy(self.scale)}
        for name, p in self._places().items():
            tensors |= {f"adam/{name}/{k}": v.clone() for k, v in self.optimiser.state.get(p, {}).items()}
        facts = {
            "horizon": self.horizon,
            "rows": len(self.fit),
            "curve": [list(c) for c in self.curve],
            "loss": self.loss,
            "since": self.since,
            "best_step": self.best_step,
            "best_score": [float(s) for s in self.best_score] if self.best else None,
            "worse": self.worse,
            "done": self.done,
            "mean": self.mean,
            "spread": self.spread,
        }
        return State(self.step, tensors, facts)

    def _restore(self, state: State) -> None:
        f, tensors = state.facts, state.tensors
        if (f["horizon"], f["rows"]) != (self.horizon, len(self.fit)):
            raise Unfit(
                f"the state is of a schedule of {f['horizon']} steps on {f['rows']} rows, and this one has "
                f"{self.horizon} on {len(self.fit)}",
                where="taking up a fitting",
                fix="give the same horizon, rows and early stopping, or start anew without a state",
            )
        self.centre, self.scale = tensors["head/centre"].numpy(), tensors["head/scale"].numpy()
        self.mean, self.spread = f["mean"], f["spread"]
        self._prepare(tensors["now/head/weight"].double(), tensors["now/head/bias"].double())
        self._load({k.removeprefix("now/"): v for k, v in tensors.items() if k.startswith("now/")})
        for name, p in self._places().items():
            start = f"adam/{name}/"
            kept = {k.removeprefix(start): v.clone() for k, v in tensors.items() if k.startswith(start)}
            if kept:
                self.optimiser.state[p] = kept
        self.best = {k.removeprefix("best/"): v for k, v in tensors.items() if k.startswith("best/")}
        self.step, self.loss, self.since = state.step, f["loss"], f["since"]
        self.curve = [(int(s), float(x), y) for s, x, y in f["curve"]]
        if f["best_score"] is not None:
            self.best_score = (f["best_score"][0], f["best_score"][1])
        self.best_step, self.worse, self.done = f["best_step"], f["worse"], f["done"]


def poll(step: int) -> None:
    """Raise `Stopped` when the soft stop is asked for."""
    if STOP.get()():
        raise Stopped(step)


def _seed(seed: int, what: str, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {what} {number}".encode()).digest()[:7])


def _by_budget(rows: Sequence[int], costs: Sequence[int], budget: int) -> list[list[int]]:
    """Rows sorted by cost, cut where (rows × longest) would pass the budget; a single row always goes through."""
    parts: list[list[int]] = []
    for row in sorted(rows, key=lambda r: (costs[r], r)):
        if parts and (len(parts[-1]) + 1) * costs[row] <= budget:
            parts[-1].append(row)
        else:
            parts.append([row])
    return parts


@contextmanager
def _train_mode(module: torch.nn.Module, rows: int) -> Iterator[None]:
    """Dropout on; batch normalisation keeps its statistics where the rows are few."""
    module.train()
    if rows < BATCH_NORM_ROWS:
        for part in module.modules():
            if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
                part.eval()
    try:
        yield
    finally:
        module.eval()
