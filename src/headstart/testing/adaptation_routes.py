"""What a route must do, and what it may claim; and the smallest encoder and view to try one on."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from headstart.core import DEFAULT_METRIC, Fitted, Fitting, State, Steps, TaskType
from headstart.execution import fit
from headstart.numerics.artifacts import Delta, Head, Model
from headstart.numerics.linear import chosen
from headstart.numerics.low_rank import merged

Array = np.ndarray[Any, Any]
SHORT = Steps(horizon=4)


class _Net(torch.nn.Module):
    """Two linear layers, a normalisation and dropout: the things that go wrong in training."""

    def __init__(self, columns: int, width: int) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(columns, width), torch.nn.Linear(width, width)
        self.norm, self.dropout = torch.nn.BatchNorm1d(width), torch.nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.norm(torch.tanh(self.first(x)))
        out: torch.Tensor = hidden + self.second(self.dropout(hidden))
        return out


@dataclass(eq=False)
class TinyEncoder:
    """An encoder of number columns with two layers, drawn from a seed without touching the global generator."""

    columns: int = 6
    width: int = 8
    seed: int = 0
    fingerprint: str = "tiny"
    linear_layers: Sequence[str] = ("first", "second")

    @cached_property
    def module(self) -> torch.nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            return _Net(self.columns, self.width).eval()

    @property
    def layers(self) -> Sequence[Sequence[str]]:
        names = ("weight", "bias")
        return tuple(f"first.{n}" for n in names), tuple(f"{m}.{n}" for m in ("norm", "second") for n in names)

    def costs(self, inputs: pa.Table) -> Sequence[int]:
        return [1 + i % 7 for i in range(inputs.num_rows)]

    def collate(self, inputs: pa.Table, rows: Sequence[int]) -> torch.Tensor:
        picked = inputs.take(list(rows))
        return torch.from_numpy(np.stack([c.to_numpy() for c in picked.columns], axis=1)).float()

    def forward_features(self, batch: Any) -> torch.Tensor:
        out: torch.Tensor = self.module(batch)
        return out


@dataclass(frozen=True, eq=False)
class MemorySplit:
    """Rows in memory, with the features that an untouched encoder gives them."""

    ids: Sequence[str]
    inputs: pa.Table
    labels: Array
    features: Array
    texts: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def columns(self) -> pa.Table:
        return self.inputs

    def images(self, side: int) -> Array:
        return np.zeros((0, side, side, 3), dtype=np.uint8)

    def take(self, rows: Sequence[int] | Array) -> MemorySplit:
        at = [int(r) for r in rows]
        return MemorySplit(
            [self.ids[i] for i in at], self.inputs.take(pa.array(at, pa.int64())), self.labels[at], self.features[at]
        )


@dataclass(frozen=True, eq=False)
class MemoryView:
    """A `FitView` in memory; the encoder is a fresh copy for each view."""

    task: TaskType
    classes: int
    train: MemorySplit
    valid: MemorySplit
    source: TinyEncoder = field(default_factory=TinyEncoder)
    seed: int = 0
    modality: str = "table"

    @property
    def metric(self) -> str:
        return DEFAULT_METRIC[self.task]

    @property
    def unlabelled(self) -> MemorySplit:
        return self.valid.take(())

    @cached_property
    def encoder(self) -> TinyEncoder:
        return copy.deepcopy(self.source)


def draw(
    seed: int,
    task: TaskType = "single_label",
    rows: int = 45,
    classes: int = 3,
    gap: float = 2.0,
    *,
    square: bool = False,
) -> MemoryView:
    """A view of clustered rows (numbers: of a linear function), two thirds to train on.

    square: centres at right angles, so that chance puts no two of them side by side.
    """
    g = np.random.default_rng(seed)
    labels: Array = np.arange(rows) % classes
    centres = g.normal(size=(classes, 6))
    if square:
        centres = 6**0.5 * np.linalg.qr(centres.T)[0].T
    x = gap * centres[labels] + g.normal(size=(rows, 6))
    if task == "regression":
        labels = 50 + 10 * (x @ g.normal(size=6)) + g.normal(size=rows)
    if task == "multi_label":
        labels = (x[:, :classes] > 0).astype(np.int8)
    source = TinyEncoder(seed=seed % 1000)
    table = pa.table({f"c{i}": x[:, i] for i in range(6)})
    split = MemorySplit([f"row {i}" for i in range(rows)], table, labels, fit.features(source, table))
    held = [i for i in range(rows) if i // classes % 3 == 0]
    rest = sorted(set(range(rows)) - set(held))
    outputs = 0 if task == "regression" else classes
    return MemoryView(task, outputs, split.take(rest), split.take(held), source, seed % 1000)


def fresh(view: MemoryView, **changes: Any) -> MemoryView:
    """The same rows with an encoder that no method has touched."""
    return replace(view, **changes)


def run(method: Fitting, view: MemoryView, steps: Steps = SHORT, state: State | None = None) -> Fitted:
    return method(fresh(view), state, steps)


def repeatable(method: Fitting, seed: int) -> None:
    view = draw(seed)
    a, b = run(method, view), run(method, view)
    assert np.array_equal(a.predictions, b.predictions), "the same call gave other predictions"


def predicts_for_every_task(method: Fitting, seed: int) -> None:
    for task in method.needs.tasks:
        if task == "tagging":  # words come as rows of one class each, which were tried
            continue
        view = draw(seed, task)  # type: ignore[arg-type]  # needs holds names of tasks
        p = run(method, view).predictions
        assert p.shape == (len(view.valid), view.classes or 1)
        assert p.dtype == np.float64
        assert np.isfinite(p).all()
        if task == "single_label":
            assert np.allclose(p.sum(axis=1), 1)
        if task == "multi_label":
            assert ((p >= 0) & (p <= 1)).all()
        if task == "regression":
            spread = np.ptp(view.train.labels)
            assert abs(p.mean() - view.train.labels.mean()) < spread, "values are not in the label's unit"


def never_reads_valid_labels(method: Fitting, seed: int) -> None:
    view = draw(seed)
    other = replace(view.valid, labels=view.valid.labels[::-1].copy())
    a, b = run(method, view), run(method, replace(view, valid=other))
    assert np.array_equal(a.predictions, b.predictions), "labels of the rows to score change the predictions"


def missing_class(method: Fitting, seed: int) -> None:
    """A class without a training row gets a probability near 0, and nothing breaks."""
    view = draw(seed)
    kept = np.flatnonzero(view.train.labels != 1)
    p = run(method, replace(view, train=view.train.take(kept))).predictions
    assert np.isfinite(p).all()
    assert p[:, 1].max() < 1e-6


def artifact_predicts(method: Fitting, seed: int) -> None:
    """What is delivered gives the predictions that were reported, on an encoder of its own."""
    view = draw(seed)
    fitted = run(method, view)
    encoder = copy.deepcopy(view.source)
    _put(encoder, fitted.artifact)
    head: Head = fitted.artifact if isinstance(fitted.artifact, Head) else fitted.artifact.head  # type: ignore[union-attr]  # routes make no Table
    again = head(fit.features(encoder, view.valid.inputs))
    assert np.allclose(again, fitted.predictions, atol=1e-5)  # a merged low-rank change is rounded


def no_rows_to_score(method: Fitting, seed: int) -> None:
    view = draw(seed)
    assert run(method, replace(view, valid=view.valid.take(()))).predictions.shape == (0, 3)


def row_order(method: Fitting, seed: int) -> None:
    view = draw(seed)
    order = np.random.default_rng(seed).permutation(len(view.train))
    a, b = run(method, view), run(method, replace(view, train=view.train.take(order)))
    assert np.allclose(a.predictions, b.predictions, atol=1e-4)  # an iterative optimum


def learns_separable(method: Fitting, seed: int) -> None:
    view = draw(seed, rows=135, gap=6.0, square=True)  # 45 scored: of 15, three are wrong for one seed in hundreds
    p = run(method, view, Steps(horizon=60)).predictions
    assert (p.argmax(axis=1) == view.valid.labels).mean() > 0.8


def encoder_untouched(method: Fitting, seed: int) -> None:
    assert isinstance(run(method, draw(seed)).artifact, Head)


def weak_is_the_prior(method: Fitting, seed: int) -> None:
    """A strength near 0 gives the class shares, or the mean."""
    weak = replace(method, strengths=(1e-9,))  # type: ignore[type-var]  # a method is a dataclass
    view = draw(seed)
    shares = np.bincount(view.train.labels, minlength=3) / len(view.train)
    assert np.allclose(run(weak, view).predictions, shares, atol=1e-4)  # 1e-9 is not 0
    numbers = draw(seed, "regression")
    assert np.allclose(run(weak, numbers).predictions, numbers.train.labels.mean(), rtol=1e-4)


def resumes(method: Fitting, seed: int) -> None:
    """A run in two parts is one run, to the last bit."""
    view = draw(seed)
    whole = run(method, view, Steps(horizon=6))
    half = run(method, view, Steps(horizon=6, until=0.5))
    assert half.state is not None
    assert half.state.step == 3
    rest = run(method, view, Steps(horizon=6), half.state)
    assert np.array_equal(whole.predictions, rest.predictions)
    assert whole.curve == rest.curve
    for name, tensor in whole.artifact.tensors.items():  # type: ignore[union-attr]  # only methods with tensors claim this
        assert torch.equal(tensor, rest.artifact.tensors[name]), name  # type: ignore[union-attr]  # the same


def zero_steps_is_the_probe(method: Fitting, seed: int) -> None:
    """Without a step, and from the best probe, the predictions are the probe's."""
    view = draw(seed)
    method = replace(method, ease=1.0)  # type: ignore[type-var]  # a method is a dataclass
    head = chosen(view.train.features, view.train.labels, 3, view.train.ids).head
    p = run(method, view, Steps(horizon=0)).predictions
    assert np.allclose(p, head(view.valid.features), atol=1e-5)  # float32, folded twice


def flat_head_only(method: Fitting, seed: int) -> None:
    """A layer decay of 0 leaves the encoder as it is."""
    view = draw(seed)
    fitted = run(replace(method, layer_decay=0.0), view)  # type: ignore[type-var]  # a method is a dataclass
    assert isinstance(fitted.artifact, Model)
    for name, tensor in view.source.module.state_dict().items():
        assert torch.equal(fitted.artifact.tensors[name], tensor), name


def merged_is_the_same(method: Fitting, seed: int) -> None:
    """Adding the change to the weights gives the outputs of the adapters, and a change of 0 the source's own."""
    artifact_predicts(method, seed)
    view = draw(seed)
    still = run(method, view, Steps(horizon=0)).artifact
    assert isinstance(still, Delta)
    before = view.source.module.state_dict()
    for name, tensor in merged(before, still).items():
        assert torch.equal(tensor, before[name]), name


def _put(encoder: TinyEncoder, artifact: Any) -> None:
    if isinstance(artifact, Model):
        encoder.module.load_state_dict(dict(artifact.tensors))
    if isinstance(artifact, Delta):
        assert artifact.base == encoder.fingerprint
        encoder.module.load_state_dict(merged(encoder.module.state_dict(), artifact))


ALWAYS = [
    repeatable,
    predicts_for_every_task,
    never_reads_valid_labels,
    missing_class,
    artifact_predicts,
    no_rows_to_score,
]
CLAIMS = {
    law.__name__: law
    for law in (
        row_order,
        learns_separable,
        encoder_untouched,
        weak_is_the_prior,
        resumes,
        zero_steps_is_the_probe,
        flat_head_only,
        merged_is_the_same,
    )
}
