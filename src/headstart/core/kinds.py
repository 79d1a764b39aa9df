"""The shape of each kind of method. A folder of methods holds one kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from .needs import Needs, TaskType

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import torch

    from headstart.numerics.artifacts import Artifact
    from headstart.numerics.delta import Form
    from headstart.numerics.inserts import Correction, Mixture
    from headstart.numerics.moments import Moments
    from headstart.numerics.records import Records
    from headstart.numerics.routers import Router

    Array = np.ndarray[Any, Any]
    Combine = Callable[["TensorContext", torch.Tensor, Sequence[torch.Tensor]], torch.Tensor]


@dataclass(frozen=True, eq=False, slots=True)
class Score:
    """What an estimator says. value: higher is better.

    losses: (rows,) per-row losses, lower is better, NaN where a row was not scored; or None. Where their mean, negated,
    is the value or the value less 1, or the value is the mean of exp(-losses), the value's error follows from them.
    error: standard error of the value over draws of the rows, None where the estimator does not tell.
    """

    value: float
    losses: Array | None = None
    error: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Steps:
    """How far a fitting may go, in optimiser steps.

    horizon: length of the whole schedule; None lets the method take its own default for the rows it sees.
    until: stop after this fraction (0, 1] of the schedule; the state then goes on from there.
    early_stop: whether an inner split of the training rows may end the schedule sooner.
    """

    horizon: int | None = None
    until: float = 1.0
    early_stop: bool = False


@dataclass(frozen=True, eq=False, slots=True)
class State:
    """Where an interrupted fitting stands: the step it reached, tensors by name, and JSON values."""

    step: int
    tensors: Mapping[str, torch.Tensor]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, slots=True)
class Fitted:
    """What a fitting made.

    predictions: (rows of view.valid, outputs) float64: probabilities, or values for regression.
    state: for going on, None when there is nothing to go on with. curve: (step, training loss, inner score or None).
    fraction: of the schedule, as chosen by early stopping; 1.0 without it. facts: JSON values for the receipt, such as
    the chosen strength of a probe, `steps` run and `horizon`.
    """

    artifact: Artifact
    predictions: Array
    state: State | None = None
    curve: tuple[tuple[int, float, float | None], ...] = ()
    fraction: float = 1.0
    facts: Mapping[str, Any] = field(default_factory=dict)


class Raw(Protocol):
    """Rows as people have them, decoded on demand; what no-transfer systems and saved artifacts read."""

    def __len__(self) -> int: ...
    @property
    def texts(self) -> Sequence[str]: ...
    def images(self, side: int) -> Array:
        """(rows, side, side, 3) uint8, upright, resized with aspect ratio kept and padded."""
        ...

    @property
    def columns(self) -> pa.Table: ...


class Split(Raw, Protocol):
    """One side of a fold. labels as in `Rows.labels`; features (rows, width) float32 of the view's source."""

    @property
    def ids(self) -> Sequence[str]: ...
    @property
    def inputs(self) -> pa.Table: ...
    @property
    def labels(self) -> Array: ...
    @property
    def features(self) -> Array: ...


class Batch(Protocol):
    """What an encoder collated; knows only how to be counted."""

    def __len__(self) -> int: ...


class Encoder(Protocol):
    """An opened encoder that can be trained: the source's own preprocessing, pooling and normalisation, always.

    module: torch module; `forward_features` maps a collated batch to (rows, width) float32, with gradients when the
    module is in train mode. layers: parameter names from the input to the output, one tuple a depth; a head is not in
    it. linear_layers: module names that low-rank adapters may go to.
    """

    @property
    def width(self) -> int: ...
    @property
    def module(self) -> torch.nn.Module: ...
    @property
    def layers(self) -> Sequence[Sequence[str]]: ...
    @property
    def linear_layers(self) -> Sequence[str]: ...
    def costs(self, inputs: pa.Table) -> Sequence[int]:
        """Tokens (or patches) of each row, for batches by budget."""
        ...

    def collate(self, inputs: pa.Table, rows: Sequence[int]) -> Batch: ...
    def forward_features(self, batch: Batch) -> torch.Tensor: ...


class View(Protocol):
    """What one source says about one target; computed on first use and shared by all methods that ask.

    labels: as in `Rows.labels`. folds: (rows,) number of the fold that scores each row, -1 for none. groups: (rows,)
    number of the group of each row; rows of one group, such as words of one sentence or equal inputs, are in one fold.
    moments: of the features, by class (or with the value, for regression). class_moments: the same, perhaps without the
    Gram matrix, which is most of the work. classes: their number, 0 for regression.
    task: never `tagging`, of which the words are seen as rows of one class each.
    reference: (rows, outputs) predictions of a system without transfer, each row's by a fit without its fold; NaN for
    rows in no fold.
    """

    @property
    def task(self) -> TaskType: ...
    @property
    def classes(self) -> int: ...
    @property
    def labels(self) -> Array: ...
    @property
    def folds(self) -> Array: ...
    @property
    def groups(self) -> Array: ...
    @property
    def features(self) -> Array: ...
    @property
    def moments(self) -> Moments: ...
    @property
    def class_moments(self) -> Moments: ...
    @property
    def predictions(self) -> Array: ...
    @property
    def reference(self) -> Array: ...


class Candidate(Protocol):
    """What one source says about the labelled rows of a target; all candidates for a set speak of the same rows.

    labels, classes, folds, features, moments, predictions: as in `View`. table: (rows, outputs) out-of-fold predictions
    of the source's cross-validated linear probe, NaN where a row was not scored. own: features and labels of rows that
    the source learned from, None where they are not at hand.
    """

    @property
    def task(self) -> TaskType: ...
    @property
    def classes(self) -> int: ...
    @property
    def labels(self) -> Array: ...
    @property
    def folds(self) -> Array: ...
    @property
    def features(self) -> Array: ...
    @property
    def moments(self) -> Moments: ...
    @property
    def predictions(self) -> Array: ...
    @property
    def table(self) -> Array: ...
    @property
    def own(self) -> tuple[Array, Array] | None: ...


class SetFunction(Protocol):
    """How good candidates are together, by their numbers; higher is better, no candidates are worth 0."""

    def __call__(self, members: Sequence[int]) -> float: ...


class Sample(Protocol):
    """One data set as a comparison of two sees it.

    features: (rows, width) float32 of one embedding, the same for both data sets. labels: as in `Rows.labels`, None
    where there are none. classes: their number, 0 for regression.
    """

    def __len__(self) -> int: ...
    @property
    def task(self) -> TaskType: ...
    @property
    def classes(self) -> int: ...
    @property
    def texts(self) -> Sequence[str]: ...
    @property
    def features(self) -> Array: ...
    @property
    def labels(self) -> Array | None: ...


class TaskSample(Sample, Protocol):
    """One labelled data set as seen through an encoder, which all data sets compared share.

    inputs: of its rows. content: (rows,) names, equal for equal inputs. probe: inputs that are the same for all data
    sets compared. encoder: a fresh copy; only for methods that declare `gradients`.
    """

    @property
    def inputs(self) -> pa.Table: ...
    @property
    def content(self) -> Sequence[str]: ...
    @property
    def probe(self) -> pa.Table: ...
    @property
    def encoder(self) -> Encoder: ...


class FitView(Protocol):
    """One fold of a target, and the source to fit on it: never test rows.

    encoder: a fresh copy each time the view is made; only for methods that declare `gradients`.
    metric: name of the target's metric, for inner choices. seed: of this trial.
    """

    @property
    def task(self) -> TaskType: ...
    @property
    def classes(self) -> int: ...
    @property
    def modality(self) -> str: ...
    @property
    def metric(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def train(self) -> Split: ...
    @property
    def valid(self) -> Split: ...
    @property
    def unlabelled(self) -> Split: ...
    @property
    def encoder(self) -> Encoder: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorContext:
    """What a merge may know about the tensor at hand besides its numbers.

    shape: of the whole tensor, also where only a tile of it is at hand. offset: how many of its entries, in row-major
    order, come before the tile; what is random must depend on it, on the name and on the seed, and on nothing else.
    depth: where its layer lies between the first, 0, and the last, 1; None outside layers.
    """

    name: str
    shape: tuple[int, ...]
    seed: int = 0
    offset: int = 0
    depth: float | None = None


Per = Literal["tensor", "row", "column"]


class InnerProducts(Protocol):
    """Inner products between the models' versions of one tensor, float64, computed when they are asked for.

    weights, changes: (groups, models, models), of the weights and of their differences from the base. There is one
    group for the whole tensor, or one for each row: what lies behind one index of the first axis; or one for each
    column, across them. A vector is one group.
    """

    @property
    def models(self) -> int: ...
    def weights(self, per: Per = "tensor") -> Array: ...
    def changes(self, per: Per = "tensor") -> Array: ...


@dataclass(frozen=True, eq=False, slots=True)
class Coefficients:
    """How much of each model: values (groups, models), float64, of its weights, or of its change added to the base.

    per: what a group is, where there are several.
    """

    values: Array
    of: Literal["weights", "changes"] = "weights"
    per: Per = "tensor"


class Selection(Protocol):
    """Which entries of a tile belong to the chosen ones, from the tile's values: booleans of their shape.

    changes: of a model whose changes were chosen by size, the chosen ones, and 0 elsewhere.
    cut: of the tile, the value above which all are chosen, and how many of those equal to it; -1 for all.
    """

    def __call__(self, context: TensorContext, values: torch.Tensor) -> torch.Tensor: ...
    def changes(self, context: TensorContext, base: torch.Tensor, one: torch.Tensor) -> torch.Tensor: ...
    def cut(self, context: TensorContext) -> tuple[float, int]: ...


class Survey(Protocol):
    """Passes over all tensors that are chosen among together, before any of them is merged.

    A function gives values >= 0 of the tile's shape, from what a merge is given.
    largest: for each function, the entries with the largest values: exactly `round(fraction * entries)`, of equal
    values those that come first (tensors by name, entries in row-major order).
    ranked: for each function, its value of a rank: 0 the smallest, entries - 1 the largest.
    sums: of each function's values over all entries; a function may give one number for a whole tile.
    """

    @property
    def models(self) -> int: ...
    @property
    def entries(self) -> int: ...
    def largest(self, values: Sequence[Combine], fractions: Sequence[float]) -> list[Selection]: ...
    def ranked(self, values: Sequence[Combine], ranks: Sequence[int]) -> Array: ...
    def sums(self, values: Sequence[Combine]) -> Array: ...


Seen = Literal["squares", "inputs", "gradients", "merged_inputs"]


@dataclass(frozen=True, eq=False, slots=True)
class Passes:
    """What one model's forward and backward passes over its own rows showed at one tensor; None where nothing was asked
    for, or nothing can be said.

    squares: of the tensor's shape, mean over the rows of the expected squared gradient of the log-likelihood: the
    diagonal of its Fisher information. inputs, gradients: (in, in) and (out, out) second moments of what goes into a
    linear layer, mean over the tokens that count, and of the gradient at what comes out of it. transposed: the weight
    is stored as (in, out).
    """

    squares: torch.Tensor | None = None
    inputs: torch.Tensor | None = None
    gradients: torch.Tensor | None = None
    transposed: bool = False


class MergeView(Protocol):
    """What a merge that learns sees: M models of one base, T tensors that they changed, and rows of tasks.

    tensors: names, in the order of the shares. tasks: names; each is predicted by its own head. link: what makes
    predictions of a task's logits: `softmax`, `sigmoid` or `identity`. rows: how many of a task may be learned from.
    labels: (rows,) class numbers or values, or (rows, classes), in the order of the logits' columns. base, changes: of
    a tensor, float32; of all models; the base is zeros where there is none. shared: base + the sum of shares (T, M)
    times changes. made: the weights that a merge of another kind makes of the models, by name and settings,
    some tensors by settings of their own. depth: of a tensor, as in `TensorContext`.
    logits: (rows, outputs), differentiable in the weights. features: (rows, width) what goes into the last layer of the
    task's head. states: (rows, width) mean of the last states of the body over the tokens that count, which no head has
    part in. own: the number of the model that a task comes from, None where it is new to all of them. head: tensors of
    a task's own head, by the names of its model's folder; weights of those names take their place. blocks: of each
    feed-forward block, names of its weights and biases in the order in which they are called, and the width of what
    goes into it.
    """

    @property
    def models(self) -> Sequence[str]: ...
    @property
    def tensors(self) -> Sequence[str]: ...
    @property
    def tasks(self) -> Sequence[str]: ...
    def link(self, task: int) -> Literal["softmax", "sigmoid", "identity"]: ...
    def metric(self, task: int) -> str: ...
    def rows(self, task: int) -> int: ...
    def labels(self, task: int, rows: Sequence[int]) -> torch.Tensor: ...
    def own(self, task: int) -> int | None: ...
    def base(self, tensor: str) -> torch.Tensor: ...
    def changes(self, tensor: str) -> Sequence[torch.Tensor]: ...
    def shared(self, shares: Array) -> dict[str, torch.Tensor]: ...
    def depth(self, tensor: str) -> float | None: ...
    def made(
        self, method: str, settings: Mapping[str, Any], own: Mapping[str, Mapping[str, Any]] | None = None
    ) -> dict[str, torch.Tensor]: ...
    def head(self, task: int) -> Mapping[str, torch.Tensor]: ...
    def blocks(self) -> Sequence[tuple[Sequence[str], int]]: ...
    def logits(
        self, weights: Mapping[str, torch.Tensor], task: int, rows: Sequence[int], mixtures: Sequence[Mixture] = ()
    ) -> torch.Tensor: ...
    def features(self, weights: Mapping[str, torch.Tensor], task: int, rows: Sequence[int]) -> torch.Tensor: ...
    def states(self, weights: Mapping[str, torch.Tensor], task: int, rows: Sequence[int]) -> torch.Tensor: ...


@dataclass(frozen=True, eq=False, slots=True)
class Learned:
    """What a merge learned: shares of the models, or another merge with the settings that were found.

    shares: (T, M) how much of each model's change goes into each tensor. gates: by tensor, factors on the changes of
    its entries, that can be repeated to (M, …): for each model its own, or (1, …) for all; where a tensor has none, its
    changes are taken whole. method, settings: of the other merge; own: settings of some tensors, in place of those.
    curve: (step, value of the objective, lower is better). facts: JSON values for the receipt.
    """

    shares: Array | None = None
    gates: Mapping[str, Array] = field(default_factory=dict)
    method: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    own: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    curve: tuple[tuple[int, float], ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, slots=True)
class Looped:
    """What rounds of training and merging made.

    weights: float32, by tensor, of all that the models changed. curve: (round, what the method measures, lower is
    better), from 0 for where it began. facts: JSON values for the receipt.
    """

    weights: Mapping[str, torch.Tensor]
    curve: tuple[tuple[int, float], ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, slots=True)
class Routed:
    """A merge that keeps parts of its models apart.

    shared: the merge that everything goes through. experts: of each model, by tensor, what is added to that for inputs
    of its task, tensors of its head among them. common: a change that experts of the form `Picked` take their part of.
    router: tells whose task an input is of; None where only the caller can. corrections: of each model, what is taken
    from the vectors that go into its head. mixtures: tensors of which every input gets as much of each expert as its
    gates say, whatever its task.
    """

    shared: Learned
    experts: Sequence[Mapping[str, Form]]
    common: Mapping[str, Form] = field(default_factory=dict)
    router: Router | None = None
    corrections: Sequence[Correction | None] = ()
    mixtures: Sequence[Mixture] = ()


@dataclass(frozen=True, eq=False, slots=True)
class Finding:
    """What a check found, in a sentence, with its figures as JSON values."""

    name: str
    sentence: str
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, slots=True)
class Known:
    """What is known of a new target, beside records of T past targets and S sources.

    similarities: (T,) to each past target, higher is more alike, NaN where unknown. values: (S,) its own figures in its
    metric, NaN where a source was not tried. between: (T, T) similarities among the past targets, in the same measure.
    vectors: (S, V) of each source, such as `numerics.decisions` makes of its answers to probes; NaN where unknown.
    """

    similarities: Array | None = None
    values: Array | None = None
    between: Array | None = None
    vectors: Array | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Guess:
    """What a recall expects of each source on the new target.

    values: (S,) higher is better, NaN for a source of which nothing is known. errors: (S,) standard errors of the
    values, for methods that have them. facts: JSON values for the receipt.
    """

    values: Array
    errors: Array | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, slots=True)
class PastTrials:
    """Trials of past targets (T) over settings: of each target, (settings, validation figure), higher is better."""

    targets: tuple[str, ...]
    trials: tuple[tuple[tuple[Mapping[str, Any], float], ...], ...]


@dataclass(frozen=True, eq=False, slots=True)
class Experience:
    """What was said of sources on past targets (n pairs of the two), and what came of it.

    features: (n, d) float64, finite; the higher one is, the more is to be expected. values: (n,) what came of it,
    higher is better. targets: (n,) number of the past target.
    """

    features: Array
    values: Array
    targets: Array


class Expectation(Protocol):
    """(m,) values to expect at features (m, d), the columns as in the experience."""

    def __call__(self, features: Array) -> Array: ...


class Method(Protocol):
    @property
    def needs(self) -> Needs: ...
    @property
    def claims(self) -> tuple[str, ...]: ...
    @property
    def cites(self) -> str: ...


class Ranking(Method, Protocol):
    """Predicts how well a source will do on a target; higher is better."""

    def __call__(self, view: View) -> Score: ...


class Gathering(Method, Protocol):
    """Says how good sources are together on a target, so that the best few can be looked for."""

    def __call__(self, candidates: Sequence[Candidate]) -> SetFunction: ...


class Expecting(Method, Protocol):
    """Learns from past targets what to expect of sources on a new one; of a higher feature never less."""

    def __call__(self, past: Experience) -> Expectation: ...


class Diverging(Method, Protocol):
    """How far apart two data sets are: 0 for the same rows, never below, smaller is nearer."""

    def __call__(self, source: Sample, target: Sample) -> float: ...


class Resembling(Method, Protocol):
    """How alike two tasks are: 1 for the same one, never above, higher is more alike.

    embed: what is compared, arrays by name; computed once for a task, however many others it is compared with.
    """

    def embed(self, sample: TaskSample) -> dict[str, Array]: ...
    def __call__(self, source: Mapping[str, Array], target: Mapping[str, Array]) -> float: ...


class Fitting(Method, Protocol):
    """Fits a system on one fold: from a source (routes) or from the rows alone (baselines)."""

    def __call__(self, view: FitView, state: State | None, steps: Steps) -> Fitted: ...


class Fusing(Method, Protocol):
    """Weights (members,) that sum to one, for probabilities or values of several systems on the same rows.

    tables: each (rows, outputs). labels as in `Rows.labels`. metric: its name.
    """

    def __call__(self, tables: Sequence[Array], labels: Array, metric: str) -> Array: ...


class Merging(Method, Protocol):
    """One tensor at a time, or one tile of it; float32 in and out; the engine rounds once at the end."""

    def __call__(self, context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor: ...


class Weighting(Method, Protocol):
    """How much of each model goes into one tensor; the engine does the sum.

    What follows from lengths and angles between the models is of this kind, as their inner products tell it: no tensor
    is ever held whole.
    """

    def __call__(self, context: TensorContext, inner: InnerProducts) -> Coefficients: ...


class Trimming(Method, Protocol):
    """Looks over the changes of all models before it merges them tile by tile.

    trim: which tensors one survey covers, `model` all of them or `tensor` each alone. Gives what a `Merging` is.
    """

    @property
    def trim(self) -> Literal["model", "tensor"]: ...
    def __call__(self, survey: Survey) -> Combine: ...


class Matching(Method, Protocol):
    """One whole tensor at a time, with what each model's passes over its own rows showed there; float32 in and out.

    asks: what the passes must look at; `merged_inputs`, which stands alone, are inputs where all layers before are
    merged already. Where there is no base, it is zeros.
    """

    @property
    def asks(self) -> tuple[Seen, ...]: ...
    def __call__(
        self, context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor], passes: Sequence[Passes]
    ) -> torch.Tensor: ...


class Learning(Method, Protocol):
    """Learns from rows how a merge is to be made; no step in all gives where it begins.

    needs.labels: whether it may read labels.
    """

    def __call__(self, view: MergeView, steps: Steps) -> Learned: ...


class Looping(Method, Protocol):
    """Trains copies of one body and merges them, round after round; no step in all trains nothing.

    start: where the first round begins: at the `base`, at a merge of the models, by its name, or with `models`, which
    is the base too, but what the first round merges are the models themselves. body: the weights there, of all tensors
    of the view. Heads stay as they are.
    """

    @property
    def start(self) -> str: ...
    def __call__(self, view: MergeView, body: Mapping[str, torch.Tensor], steps: Steps) -> Looped: ...


class Routing(Method, Protocol):
    """Makes one model that all tasks share, and what each of them keeps beside it.

    Rows are of tasks, each with a model of its own. Where `needs.gives` has `features`, there must be rows of every
    model's task; else of all or of none. needs.labels: whether it may read labels.
    """

    def __call__(self, view: MergeView, steps: Steps) -> Routed: ...


class Checking(Method, Protocol):
    """Judges tables of predictions on rows that no choice has seen.

    chosen, opponent: (rows, outputs). groups: one name a row; rows of one group are drawn together.
    """

    def __call__(
        self, chosen: Array, opponent: Array, labels: Array, groups: Sequence[str], metric: str
    ) -> Finding: ...


class Recalling(Method, Protocol):
    """Predicts from records of past transfers how each source will do on a new target."""

    def __call__(self, records: Records, target: Known) -> Guess: ...


class Advising(Method, Protocol):
    """Weights over settings for a search on a new target, from trials of past ones.

    space: the values that each setting may take. Gives for each setting one weight a value, in order; they sum to one.
    """

    def __call__(self, past: PastTrials, space: Mapping[str, Sequence[Any]], target: Known) -> dict[str, Array]: ...


KINDS: dict[str, str] = {
    "recall.sources": "Recalling",
    "recall.priors": "Advising",
    "ranking.estimators": "Ranking",
    "ranking.fusion": "Expecting",
    "ranking.divergences": "Diverging",
    "ranking.similarity": "Resembling",
    "ranking.sets": "Gathering",
    "adaptation.baselines": "Fitting",
    "adaptation.routes": "Fitting",
    "combination.merging": "Merging",
    "combination.weighting": "Weighting",
    "combination.trimming": "Trimming",
    "combination.matching": "Matching",
    "combination.learning": "Learning",
    "combination.loops": "Looping",
    "combination.routing": "Routing",
    "combination.fusion": "Fusing",
    "evidence.checks": "Checking",
}
