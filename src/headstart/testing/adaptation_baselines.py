"""What a no-transfer system must do, and what it may claim."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from headstart.core import Fitted, Fitting, FitView, Needs, State, Steps, Undeclared
from headstart.numerics.artifacts import Array, Step, Table
from headstart.numerics.steps import apply

FEW = Steps(horizon=2)  # enough where a law is not about learning
WORDS = ("red", "green", "blue", "lamp", "river", "stone", "seven", "often")


@dataclass(frozen=True, eq=False)
class Side:
    """Rows in memory; each modality only where it was given. Labels that are not there may not be read."""

    size: int
    known: Array | None = None
    written: Sequence[str] | None = None
    drawn: Array | None = None  # (rows, side, side, 3) uint8
    table: pa.Table | None = None

    def __len__(self) -> int:
        return self.size

    @property
    def ids(self) -> Sequence[str]:
        return [f"row-{i}" for i in range(self.size)]

    @property
    def labels(self) -> Array:
        if self.known is None:
            raise Undeclared("labels of rows that are not trained on were read", where="the view", fix="use view.train")
        return self.known

    @property
    def texts(self) -> Sequence[str]:
        return list(_there(self.written, "texts"))

    def images(self, side: int) -> Array:
        """By nearest neighbours, so that any side can be asked for."""
        drawn = _there(self.drawn, "images")
        at = np.arange(side) * drawn.shape[1] // side
        return np.ascontiguousarray(drawn[:, at][:, :, at])

    @property
    def columns(self) -> pa.Table:
        return _there(self.table, "columns")

    @property
    def inputs(self) -> pa.Table:
        raise Undeclared("raw inputs were read", where="the view", fix="use texts, images or columns")

    @property
    def features(self) -> Array:
        raise Undeclared("features were read, and there is no source", where="the view", fix="leave them")

    def take(self, rows: Sequence[int]) -> Side:
        at = [int(r) for r in rows]
        return Side(
            len(at),
            None if self.known is None else self.known[at],
            None if self.written is None else [self.written[i] for i in at],
            None if self.drawn is None else self.drawn[at],
            None if self.table is None else self.table.take(pa.array(at, pa.int64())),
        )


@dataclass(frozen=True, eq=False)
class MemoryView:
    """A fold in memory, for trying a no-transfer system on a few rows."""

    task: Any
    classes: int
    modality: str
    train: Any
    valid: Any
    unlabelled: Any
    metric: str = "macro_f1"
    seed: int = 0

    @property
    def encoder(self) -> Any:
        raise Undeclared("an encoder was asked for, and there is no source", where="the view", fix="leave it")


def fit_view(
    labels: Sequence[Any] | Array,
    *,
    texts: Sequence[str] | None = None,
    images: Array | None = None,
    columns: pa.Table | Mapping[str, Sequence[Any]] | None = None,
    valid: Sequence[int] = (),
    task: str = "single_label",
    classes: int | None = None,
    seed: int = 0,
) -> FitView:
    """A view of these rows; those numbered in `valid` are scored, and their labels cannot be read."""
    dtype = {"single_label": np.int64, "multi_label": np.int8, "regression": np.float64}[task]
    known = np.asarray(labels, dtype=dtype)
    table = pa.table(dict(columns)) if isinstance(columns, Mapping) else columns
    rows = Side(len(known), known, texts, images, table)
    held = {int(v) for v in valid}
    outputs = {"regression": 0, "multi_label": known.shape[-1]}.get(task, int(known.max(initial=0)) + 1)
    view: Any = MemoryView(
        task=task,
        classes=outputs if classes is None else classes,
        modality="text" if texts is not None else "image" if images is not None else "table",
        train=rows.take([i for i in range(len(known)) if i not in held]),
        valid=replace(rows.take(sorted(held)), known=None),
        unlabelled=replace(rows.take([]), known=None),
        metric="rmse" if task == "regression" else "macro_f1",
        seed=seed,
    )
    return view  # type: ignore[no-any-return]  # the sides and the view are the Protocols' by their shape


def draw(
    modality: str, task: str, seed: int, *, rows: int = 36, classes: int = 3, permuted: bool = False
) -> tuple[FitView, Array]:
    """A small target whose inputs tell the label, and the labels of its scored rows (a third).

    permuted: the labels are shuffled, and the inputs tell nothing.
    """
    chance = np.random.default_rng(seed)
    group = np.arange(rows) % classes
    inputs = _inputs(modality, group, chance)
    if permuted:
        group = chance.permutation(group)
    labels: Array = group
    if task == "multi_label":
        labels = np.stack([group == c for c in range(classes)], axis=1).astype(np.int8)
    if task == "regression":
        labels = 100.0 * group + 5000 + chance.normal(size=rows)
    valid = [i for i in range(rows) if (i // classes) % 3 == 2]
    return fit_view(labels, **inputs, valid=valid, task=task, classes=_outputs(task, classes), seed=seed), labels[valid]


def fitted(method: Fitting, view: FitView, steps: Steps = FEW, state: State | None = None) -> Fitted:
    return method(view, state, steps)


def cells(needs: Needs) -> Iterator[tuple[str, str]]:
    """Each modality and task that the method declares, of those that no-transfer systems can have."""
    for modality in needs.modalities:
        for task in needs.tasks:
            if task != "tagging":
                yield modality, task


def needs_no_source(method: Fitting, seed: int) -> None:  # the shape of a law
    assert not method.needs.gives, "a no-transfer system needs no source"


def repeatable(method: Fitting, seed: int) -> None:
    for modality, task in cells(method.needs):
        a, b = (fitted(method, draw(modality, task, seed)[0]) for _ in range(2))
        assert np.array_equal(a.predictions, b.predictions), f"{modality}, {task}: another result the second time"


def predictions_have_their_form(method: Fitting, seed: int) -> None:
    """Probabilities between 0 and 1 that sum to one over classes; a finite column for numbers. Valid labels unread."""
    for modality, task in cells(method.needs):
        view, _ = draw(modality, task, seed)
        well_formed(fitted(method, view).predictions, len(view.valid), view.classes, task)


def well_formed(predictions: Array, rows: int, classes: int, task: str) -> None:
    assert predictions.shape == (rows, classes or 1), predictions.shape
    assert predictions.dtype == np.float64
    assert np.isfinite(predictions).all()
    if task != "regression":
        assert predictions.min() >= 0
        assert predictions.max() <= 1
    if task == "single_label":
        np.testing.assert_allclose(predictions.sum(axis=1), 1.0, atol=1e-9)


def artifact_predicts_the_same(method: Fitting, seed: int) -> None:
    """The artifact, taken apart into JSON, bytes and text and put together again, gives the same predictions."""
    for modality, task in cells(method.needs):
        view, _ = draw(modality, task, seed)
        made = fitted(method, view)
        assert isinstance(made.artifact, Table), "a no-transfer system makes a table of steps"
        again = Table(tuple(_travelled(s) for s in made.artifact.steps))
        assert np.array_equal(apply(again, view.valid), made.predictions)


def rows_are_apart(method: Fitting, seed: int) -> None:
    """A row's prediction does not depend on the rows beside it."""
    for modality, task in cells(method.needs):
        view, _ = draw(modality, task, seed)
        table, valid = _table(fitted(method, view)), view.valid
        assert isinstance(valid, Side)
        alone = np.concatenate([apply(table, valid.take([i])) for i in range(3)])
        np.testing.assert_allclose(alone, apply(table, valid)[:3], rtol=1e-5, atol=1e-7)  # another order of sums


def bears_few_rows(method: Fitting, seed: int) -> None:
    """One row, one class only, equal inputs, no rows to score, and a class without training rows."""
    for modality, task in cells(method.needs):
        view, _ = draw(modality, task, seed)
        train = view.train
        assert isinstance(train, Side)
        assert isinstance(view, MemoryView)
        for few in ([0], [0, 3], [0, 1], [0, 0, 1, 1], [0, 1, 3, 4, 6, 7]):
            one = fitted(method, replace(view, train=train.take(few)))
            well_formed(one.predictions, len(view.valid), view.classes, task)
        none = fitted(method, replace(view, valid=view.valid.take([])))
        assert none.predictions.shape == (0, view.classes or 1)


def absent_class_stays_possible(method: Fitting, seed: int) -> None:
    for modality, task in cells(method.needs):
        if task == "single_label":
            view, _ = draw(modality, task, seed)
            assert isinstance(view, MemoryView)
            rows = np.flatnonzero(view.train.labels != 2)
            column = fitted(method, replace(view, train=view.train.take(rows))).predictions[:, 2]
            assert (column > 0).all(), "a class without training rows is not impossible"
            assert (column < 0.01).all(), "a class without training rows is rare"


def learns_separable(method: Fitting, seed: int) -> None:
    """Nine in ten scored rows right where the inputs tell the class plainly."""
    for modality in method.needs.modalities:
        view, truth = draw(modality, "single_label", seed, rows=150)
        right = (fitted(method, view, Steps(horizon=60)).predictions.argmax(axis=1) == truth).mean()
        assert right >= 0.9, f"{modality}: {right:.2f} right"


def chance_when_permuted(method: Fitting, seed: int) -> None:
    """With shuffled labels no better than chance: 4.5 binomial deviations, wide enough for thousands of seeds."""
    for modality in method.needs.modalities:
        view, truth = draw(modality, "single_label", seed, rows=90, permuted=True)
        right = (fitted(method, view, Steps(horizon=30)).predictions.argmax(axis=1) == truth).mean()
        assert abs(right - 1 / 3) <= 4.5 * np.sqrt((1 / 3) * (2 / 3) / len(truth)), f"{modality}: {right:.2f} right"


def numbers_in_their_unit(method: Fitting, seed: int) -> None:
    """Values near the labels' own, whatever their unit, and close to doubled for doubled labels."""
    for modality, task in cells(method.needs):
        if task == "regression":
            view, _ = draw(modality, task, seed)
            assert isinstance(view, MemoryView)
            once = fitted(method, view, Steps(horizon=10)).predictions
            twice = fitted(
                method, replace(view, train=replace(view.train, known=2 * view.train.labels)), Steps(horizon=10)
            )
            assert 4000 < once.mean() < 6200
            np.testing.assert_allclose(twice.predictions, 2 * once, rtol=1e-3)  # float32 sums in another order


def blind(method: Fitting, seed: int) -> None:
    """Every row gets the same prediction."""
    for modality, task in cells(method.needs):
        predictions = fitted(method, draw(modality, task, seed)[0]).predictions
        assert (predictions == predictions[0]).all()


def train_order(method: Fitting, seed: int) -> None:
    """The order of the training rows changes nothing."""
    for modality, task in cells(method.needs):
        view, _ = draw(modality, task, seed)
        assert isinstance(view, MemoryView)
        other = view.train.take(np.random.default_rng(seed).permutation(len(view.train)))
        a, b = (fitted(method, v).predictions for v in (view, replace(view, train=other)))
        np.testing.assert_allclose(a, b, rtol=1e-12)


def column_units(method: Fitting, seed: int) -> None:
    """A column in another unit (times four, plus one) changes nothing that matters."""
    view, _ = draw("table", "single_label", seed)
    assert isinstance(view, MemoryView)
    moved = [replace(s, table=_other_units(s.table)) for s in (view.train, view.valid)]
    a = fitted(method, view).predictions
    b = fitted(method, replace(view, train=moved[0], valid=moved[1])).predictions
    np.testing.assert_allclose(a, b, atol=1e-4)  # solvers stop at a tolerance


def goes_on(method: Fitting, seed: int) -> None:
    """Stopping in the middle and going on from the state equals never having stopped, bit for bit."""
    for modality in method.needs.modalities:
        view, _ = draw(modality, "single_label", seed)
        half = fitted(method, view, Steps(horizon=6, until=0.5))
        assert half.state is not None
        a = fitted(method, view, Steps(horizon=6), half.state).predictions
        assert np.array_equal(a, fitted(method, view, Steps(horizon=6)).predictions)


def _there(value: Any, name: str) -> Any:
    if value is None:
        raise Undeclared(f"{name} were read, and these rows have none", where="the view", fix="read the rows' own kind")
    return value


def _table(made: Fitted) -> Table:
    assert isinstance(made.artifact, Table)
    return made.artifact


def _outputs(task: str, classes: int) -> int:
    return 0 if task == "regression" else classes


def _inputs(modality: str, group: Array, chance: np.random.Generator) -> dict[str, Any]:
    rows = len(group)
    if modality == "text":
        noise = chance.choice(WORDS, (rows, 3))
        return {"texts": [f"{' '.join(n)} topic{g} {'xyz'[g % 3] * 3}" for g, n in zip(group, noise, strict=True)]}
    if modality == "image":
        images = chance.integers(0, 60, (rows, 16, 16, 1)).astype(np.uint8)
        for i, g in enumerate(group):
            part = [(slice(2, 14), slice(2, 6)), (slice(2, 6), slice(2, 14)), (slice(5, 11), slice(5, 11))][g % 3]
            images[i][part] += 180
        return {"images": np.repeat(images, 3, axis=3)}
    length = group + 0.05 * chance.normal(size=rows)
    columns = {
        "length": pa.array(length, pa.float64(), mask=chance.random(rows) < 0.1),
        "noise": pa.array(chance.normal(size=rows)),
        "other": pa.array(3.0 - group + 0.05 * chance.normal(size=rows)),
        "colour": pa.array([("red", "green", None)[g % 3] for g in group], pa.string()),
    }
    return {"columns": pa.table(columns)}


def _other_units(table: pa.Table) -> pa.Table:
    numbers = [None if v is None else 4 * v + 1 for v in table.column("other").to_pylist()]
    return table.set_column(table.column_names.index("other"), "other", pa.array(numbers, pa.float64()))


def _travelled(step: Step) -> Step:
    arrays = {k: np.frombuffer(v.tobytes(), dtype=v.dtype).reshape(v.shape) for k, v in step.arrays.items()}
    texts = {k: v.encode().decode() for k, v in step.texts.items()}
    return Step(kind=step.kind, settings=json.loads(json.dumps(dict(step.settings))), arrays=arrays, texts=texts)


ALWAYS = [
    repeatable,
    needs_no_source,
    predictions_have_their_form,
    artifact_predicts_the_same,
    rows_are_apart,
    bears_few_rows,
    absent_class_stays_possible,
]
CLAIMS = {
    law.__name__: law
    for law in (
        learns_separable,
        chance_when_permuted,
        numbers_in_their_unit,
        blind,
        train_order,
        column_units,
        goes_on,
    )
}
