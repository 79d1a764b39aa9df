"""What methods see: a fold of a target for a fitting, its first rows for an estimator, and nothing beyond their needs.

Features come from the cache, chunk by chunk in a fixed order of rows; a chunk that is missing is computed and kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from headstart import catalogue
from headstart.core import Encoder, Folds, Needs, Refused, Rows, Source, Steps, Target, TaskType, Undeclared
from headstart.numerics.chunks import Chunks
from headstart.numerics.folds import draw_order, folds_for
from headstart.numerics.moments import Moments
from headstart.numerics.ragged import places, starts_of

from .specs import canonical, chunk_key, chunks, reference_key

if TYPE_CHECKING:
    import pyarrow as pa

    from headstart.io.encoders import OpenedSource
    from headstart.numerics.space_maps import SpaceMap

Array = np.ndarray[Any, Any]
Dtype = Literal["float32", "bfloat16", "int8", "onnx", "onnx-int8"]  # that features are computed in
# the cheapest system without transfer that learns from the inputs, by modality: what the target teaches on its own,
# for the price of a few linear fits, where the papers train a network
PLAIN = {"text": "word_char_tfidf", "image": "hog_logistic", "table": "column_linear"}


class Store(Protocol):
    """Arrays by key; `io.cache.Cache` is one."""

    def get(self, key: str) -> Array | None: ...
    def put(self, key: str, array: Array) -> None: ...


class Opener:
    """A source that is opened at its first use, and closed with the `with` it was made in."""

    def __init__(self, source: Source, stack: ExitStack) -> None:
        self.source, self._stack = source, stack

    @cached_property
    def opened(self) -> OpenedSource:
        from headstart.io import sources

        return self._stack.enter_context(sources.opened(self.source))


@contextmanager
def opener(source: Source | None) -> Iterator[Opener | None]:
    """The source of a job, not opened yet; None where a job has none."""
    with ExitStack() as stack:
        yield None if source is None else Opener(source, stack)


class Pool:
    """Features of rows in a fixed order; float32. A row that is a list of words has those of each word, in order.

    ids, inputs: of all rows, in that order. The chunks of the cache are a function of them alone.
    """

    def __init__(
        self, opener: Opener, ids: Sequence[str], inputs: pa.Table, store: Store | None, dtype: Dtype = "float32"
    ) -> None:
        self._opener, self.ids, self._inputs, self._store, self._dtype = opener, tuple(ids), inputs, store, dtype
        self._at = {name: i for i, name in enumerate(self.ids)}
        self._starts = starts_of(lengths_of(inputs))
        self._held: dict[int, Array] = {}

    @classmethod
    def of_labelled(cls, opener: Opener, target: Target, store: Store | None, dtype: Dtype = "float32") -> Pool:
        """The labelled rows of a target in draw order."""
        rows = drawn(target)
        return cls(opener, rows.ids, rows.inputs, store, dtype)

    @classmethod
    def of_rows(cls, opener: Opener, rows: Rows, store: Store | None, dtype: Dtype = "float32") -> Pool:
        """Rows in the order in which they lie."""
        return cls(opener, rows.ids, rows.inputs, store, dtype)

    def __contains__(self, name: str) -> bool:
        return name in self._at

    def chunk(self, start: int, stop: int) -> Array:
        """Features of one chunk, from the cache or computed and put there."""
        if start not in self._held:
            key = self.key(start, stop)
            found = None if self._store is None else self._store.get(key)
            if found is None:
                inputs = self._inputs.slice(start, stop - start)
                found = np.asarray(self._opener.opened.features(inputs, dtype=self._dtype), dtype=np.float32)
                if self._store is not None:
                    self._store.put(key, found)
            self._held[start] = found
        return self._held[start]

    def holds(self, start: int, stop: int, taps: Sequence[Source] = ()) -> bool:
        """Whether the cache has this chunk, or that of each of these layers and poolings."""
        store, keys = self._store, [self.key(start, stop, tap) for tap in taps] or [self.key(start, stop)]
        return store is not None and all(store.get(key) is not None for key in keys)

    def fill(self, start: int, stop: int, taps: Sequence[Source]) -> list[str]:
        """Put one chunk by each of these layers and poolings into the cache, those that it lacks, from one pass."""
        assert self._store is not None  # what is computed for others must lie somewhere
        keys = [self.key(start, stop, tap) for tap in taps]
        lacking = [(key, tap) for key, tap in zip(keys, taps, strict=True) if self._store.get(key) is None]
        if lacking:
            inputs = self._inputs.slice(start, stop - start)
            found = self._opener.opened.tapped(inputs, [tap for _, tap in lacking], dtype=self._dtype)
            for (key, _), features in zip(lacking, found, strict=True):
                self._store.put(key, features)
        return keys

    def key(self, start: int, stop: int, tap: Source | None = None) -> str:
        """Name of a chunk in the cache, of the source or of one of its layers and poolings."""
        identity, backend = (tap or self._opener.source).identity, self._opener.opened.backend(self._dtype)
        if "tokens" in self._inputs.column_names:  # equal texts have one id, however they are cut into words
            words = self._inputs["tokens"].slice(start, stop - start).to_pylist()
            return chunk_key(identity, f"{backend}-words", [canonical(one) for one in words])
        return chunk_key(identity, backend, self.ids[start:stop])

    def release(self) -> None:
        """Let go of the chunks in memory; they stay in the cache."""
        self._held.clear()

    def take(self, ids: Sequence[str]) -> Array:
        """(rows, width) float32 of the rows of these names, in this order; of lists of words (words, width)."""
        at = np.array([self._at[name] for name in ids], dtype=np.int64)
        wanted = places(self._starts, at)
        if not len(wanted):
            return np.zeros((0, self._width()), dtype=np.float32)
        out: Array | None = None
        for start, stop in chunks(int(at.min()), int(at.max()) + 1, len(self.ids)):
            first, last = self._starts[[start, stop]]
            inside = np.flatnonzero((wanted >= first) & (wanted < last))
            if len(inside):
                part = self.chunk(start, stop)
                if out is None:
                    out = np.empty((len(wanted), part.shape[1]), dtype=np.float32)
                out[inside] = part[wanted[inside] - first]
        assert out is not None
        return out

    def predictions(self, rows: Rows) -> Array:
        """(rows, outputs) of the source's own head, in its own label space, or (words, outputs); not cached.

        Of a head with one label those are that a row lacks it and that it has it, which is what tells rows apart.
        """
        said = self._opener.opened.predictions(rows.inputs)
        return said if said.shape[1] > 1 else np.hstack([1 - said, said])

    def _width(self) -> int:
        known = self._opener.source.facts.get("width")
        if known is not None:
            return int(known)
        start, stop = chunks(0, 1, len(self.ids))[0]
        return int(self.chunk(start, stop).shape[1])


def lengths_of(inputs: pa.Table) -> Array:
    """(rows,) how many rows of features each row has: its words, or one."""
    if "tokens" not in inputs.column_names:
        return np.ones(inputs.num_rows, dtype=np.int64)
    return np.array([len(words) for words in inputs["tokens"].to_pylist()], dtype=np.int64)


def drawn(target: Target) -> Rows:
    """The labelled rows of a target in the order in which they are drawn."""
    rows = target.labelled
    return rows if rows.labels is None else rows.take(draw_order(rows.labels, rows.ids, target.seed))


def none_of(rows: Rows) -> Rows:
    """No rows, of the same form."""
    return Rows((), (), (), rows.inputs.slice(0, 0), None if rows.labels is None else rows.labels[:0])


def undeclared(what: str, method: str, fix: str) -> Undeclared:
    return Undeclared(f"`{what}` was read", where=f"method `{method}`", fix=fix)


class Side:
    """One side of a fold, as a `core.Split`: what lies in it is read when it is asked for."""

    def __init__(self, rows: Rows, name: str, view: FoldView) -> None:
        self._rows, self._name, self._view = rows, name, view

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def ids(self) -> Sequence[str]:
        return self._rows.ids

    @property
    def inputs(self) -> pa.Table:
        return self._rows.inputs

    @property
    def labels(self) -> Array:
        """Of training rows only: nothing is fitted to the rows that score it."""
        method = self._view.method
        if self._name != "train":
            raise undeclared(f"view.{self._name}.labels", method, "a fitting reads the labels of `view.train` only")
        if not self._view.needs.labels or self._rows.labels is None:
            raise undeclared("view.train.labels", method, "leave `labels=False` out of its needs")
        return self._rows.labels

    @cached_property
    def features(self) -> Array:
        """(rows, width) float32 of the view's source, in this order."""
        opener = self._view.require("features", f"view.{self._name}.features")
        found = self._view.pool_of(self._rows).take(self._rows.ids)
        if "gradients" in self._view.needs.gives:
            opener.opened.close()  # the copy that is trained is enough to hold
        return found

    @cached_property
    def _raw(self) -> Any:
        from headstart.io.images import RawRows

        return RawRows(self._rows.inputs)

    @property
    def texts(self) -> Sequence[str]:
        texts: Sequence[str] = self._raw.texts
        return texts

    def images(self, side: int) -> Array:
        """(rows, side, side, 3) uint8."""
        images: Array = self._raw.images(side)
        return images

    @property
    def columns(self) -> pa.Table:
        return self._rows.inputs


class FoldView:
    """A `core.FitView`: one fold of a target, and the source to fit on it.

    cell: (repeat, fold), or None for a refit on all labelled rows. scored: rows that take the place of the validation
    rows in a refit; none by default. pool: of the labelled rows, or of more rows that hold them.
    """

    def __init__(
        self,
        target: Target,
        cell: tuple[int, int] | None,
        *,
        needs: Needs,
        method: str = "?",
        seed: int = 0,
        opener: Opener | None = None,
        pool: Pool | None = None,
        store: Store | None = None,
        scored: Rows | None = None,
    ) -> None:
        rows = target.labelled
        if cell is None:
            train, valid = rows, none_of(rows) if scored is None else scored
        else:
            train, valid = (rows.take(side) for side in target.folds.sides(*cell))
        self._target, self.needs, self.method, self._seed = target, needs, method, seed
        self._opener, self._pool, self._store = opener, pool, store
        self._sides = {
            "train": Side(train, "train", self),
            "valid": Side(valid, "valid", self),
            "unlabelled": Side(target.unlabelled, "unlabelled", self),
        }

    @property
    def task(self) -> TaskType:
        return self._target.task.type

    @property
    def classes(self) -> int:
        return len(self._target.task.classes)

    @property
    def modality(self) -> str:
        return self._target.modality

    @property
    def metric(self) -> str:
        return self._target.metric.name

    @property
    def seed(self) -> int:
        return self._seed

    @property
    def train(self) -> Side:
        return self._sides["train"]

    @property
    def valid(self) -> Side:
        return self._sides["valid"]

    @property
    def unlabelled(self) -> Side:
        return self._sides["unlabelled"]

    @cached_property
    def encoder(self) -> Encoder:
        """A fresh copy that may be trained."""
        return self.require("gradients", "view.encoder").opened.encoder()

    def require(self, gift: str, what: str) -> Opener:
        """The source, where the method declares that it needs this of it."""
        if gift not in self.needs.gives:
            raise undeclared(what, self.method, f'add "{gift}" to `gives` of its needs')
        if self._opener is None:
            raise Refused(
                f"`{self.method}` needs {gift}, and was given no source",
                where="this fitting",
                fix="name a source with `--source`",
            )
        return self._opener

    def pool_of(self, rows: Rows) -> Pool:
        """The pool that holds these rows; one of their own where they are not among the labelled ones."""
        opener = self.require("features", "features")
        pool = self._pool
        if pool is None:
            pool = self._pool = Pool.of_labelled(opener, self._target, self._store)
        return pool if all(name in pool for name in rows.ids) else Pool.of_rows(opener, rows, self._store)


class RankView:
    """A `core.View`: what one source says about the first rows of a target, in draw order.

    Features and moments are computed once, and shared by the views that `seen_by` gives. store: of references, which
    are the same for all sources. parts: that moments are counted in, in the same pass; `chunks.PARTS` for errors.
    """

    def __init__(self, target: Target, rows: Rows, pool: Pool, store: Store | None = None, parts: int = 1) -> None:
        self._target, self._rows, self._pool, self._store, self._parts = target, rows, pool, store, parts
        self._of = _scored_by(target, rows)

    def seen_by(self, needs: Needs, method: str) -> GuardedView:
        """This view, for a method that may touch only what it declares."""
        return GuardedView(self, needs, method)

    @property
    def task(self) -> TaskType:
        return self._target.task.type

    @property
    def classes(self) -> int:
        return len(self._target.task.classes)

    @property
    def labels(self) -> Array:
        assert self._rows.labels is not None
        return self._rows.labels

    @property
    def folds(self) -> Array:
        return self._of

    @cached_property
    def groups(self) -> Array:
        return np.unique(self._rows.groups, return_inverse=True)[1]

    @cached_property
    def features(self) -> Array:
        return self._pool.take(self._rows.ids)

    @property
    def moments(self) -> Moments:
        return self.chunks.whole

    @property
    def class_moments(self) -> Moments:
        return self.class_chunks.whole

    @cached_property
    def chunks(self) -> Chunks:
        return Chunks.of(self.features, self.labels, self.classes, self._parts)

    @property
    def class_chunks(self) -> Chunks:
        return self.chunks if "chunks" in vars(self) else self._without_gram

    @cached_property
    def _without_gram(self) -> Chunks:
        return Chunks.of(self.features, self.labels, self.classes, self._parts, gram=False)

    @cached_property
    def predictions(self) -> Array:
        return self._pool.predictions(self._rows)

    @cached_property
    def reference(self) -> Array:
        """(rows, outputs) out-of-fold predictions of a plain system, fitted on these rows alone; from the store."""
        name = PLAIN[self._target.modality]
        key = reference_key(name, self._target.task, self._rows, self._of.tolist())
        found = None if self._store is None else self._store.get(key)
        if found is None:
            found = self._out_of_fold(name)
            if self._store is not None:
                self._store.put(key, found)
        return found

    def _out_of_fold(self, name: str) -> Array:
        method = catalogue.make("adaptation.baselines", name)
        folds = Folds(kind="cv", k=int(self._of.max(initial=-1)) + 1, of=(tuple(self._of.tolist()),))
        target = replace(self._target, labelled=self._rows, folds=folds)
        found = np.full((len(self._rows), target.task.outputs), np.nan, dtype=np.float32)
        for cell in folds.cells():
            train, valid = folds.sides(*cell)
            if train and valid:
                found[valid] = method(
                    FoldView(target, cell, needs=method.needs, method=name), None, Steps()
                ).predictions
        return found


class MappedView(RankView):
    """A `core.View` of a source that is not opened: what its base says of the rows, through the map from one to the
    other. Features and moments alone; a base's own view is its `RankView`."""

    def __init__(self, base: RankView, through: SpaceMap) -> None:
        super().__init__(base._target, base._rows, base._pool, base._store)
        self._base, self._through = base, through

    @cached_property
    def features(self) -> Array:
        return self._through(self._base.features)

    @cached_property
    def moments(self) -> Moments:
        return self._through.moments(self._base.moments)

    @property
    def class_moments(self) -> Moments:
        return self._without_gram.whole  # what moments of the base tell lacks the lengths

    @property
    def reference(self) -> Array:
        return self._base.reference


class GuardedView:
    """A `RankView` through the needs of one method."""

    def __init__(self, view: RankView, needs: Needs, method: str) -> None:
        self._view, self._needs, self._method = view, needs, method

    def _require(self, gift: str, what: str) -> None:
        if gift not in self._needs.gives:
            raise undeclared(f"view.{what}", self._method, f'add "{gift}" to `gives` of its needs')

    @property
    def task(self) -> TaskType:
        return self._view.task

    @property
    def classes(self) -> int:
        return self._view.classes

    @property
    def labels(self) -> Array:
        if not self._needs.labels:
            raise undeclared("view.labels", self._method, "leave `labels=False` out of its needs")
        return self._view.labels

    @property
    def folds(self) -> Array:
        return self._view.folds

    @property
    def groups(self) -> Array:
        return self._view.groups

    @property
    def features(self) -> Array:
        self._require("features", "features")
        return self._view.features

    @property
    def moments(self) -> Moments:
        self._require("features", "moments")
        return self._view.moments

    @property
    def class_moments(self) -> Moments:
        self._require("features", "class_moments")
        return self._view.class_moments

    @property
    def chunks(self) -> Chunks:
        self._require("features", "chunks")
        return self._view.chunks

    @property
    def class_chunks(self) -> Chunks:
        self._require("features", "class_chunks")
        return self._view.class_chunks

    @property
    def predictions(self) -> Array:
        self._require("predictions", "predictions")
        return self._view.predictions

    @property
    def reference(self) -> Array:
        if not self._needs.reference:
            raise undeclared("view.reference", self._method, "add `reference=True` to its needs")
        return self._view.reference


def first_rows(target: Target, rows: Rows, frozen: int | None = None) -> Target:
    """The target with these labelled rows alone, and the fold that scores each.

    frozen: what is scored are the rows after the first so many, by what these tell.
    """
    of = _scored_by(target, rows) if frozen is None else np.where(np.arange(len(rows)) < frozen, -1, 0)
    folds = Folds(kind="cv", k=int(of.max(initial=-1)) + 1, of=(tuple(of.tolist()),))
    return replace(target, labelled=rows, folds=folds)


def _scored_by(target: Target, rows: Rows) -> Array:
    """The fold of repeat 0 that scores each of these rows, -1 for none.

    Where one validation split is all there is, the rows are dealt into folds of their own: an estimator that scored a
    fifth of a small beginning only could tell no two sources apart.
    """
    if target.folds.kind == "split" and rows.labels is not None:
        return np.array(folds_for(rows.labels, rows.groups, target.seed, split=False).of[0], dtype=np.int64)
    position = {name: i for i, name in enumerate(target.labelled.ids)}
    return np.array([target.folds.of[0][position[name]] for name in rows.ids], dtype=np.int64)
