"""Words: how a target of tags looks to methods that know rows of one class each.

A row of such a target is a sentence, with a tag for each of its words. What a method sees of it are the words: rows of
one class, which is the tag, with the features of the word in its sentence, and what a tagger's own head says of it;
each is in the fold and the group of its sentence, so that no sentence is on two sides. So an estimator or a probe needs
to know nothing of tags, and says `tagging` among its tasks where such rows are all it needs. Draws, races and intervals
go by sentences.

A word may have no features: a sentence is cut at the length that the model takes. Such words are left out of what
methods see. Where a sentence is scored they count all the same: a system that cannot see a word says of it what all
words say, the shares of the tags, which is `O` nearly always; and how many they are is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from headstart.core import Rows, Target, Task
from headstart.numerics.ragged import owners, starts_of

from .views import Opener, Pool

Array = np.ndarray[Any, Any]


def by_words(target: Target) -> Target:
    """The target with its words as labelled rows of one class each; itself where it is none of tags.

    The name of a word is that of its sentence, and its number in it. Its text is the word alone.
    """
    if target.task.type != "tagging":
        return target
    rows, starts = target.labelled, starts_of_words(target)
    labels = rows.labels
    assert labels is not None
    of = owners(starts)
    number = {name: at for at, name in enumerate(target.task.classes)}
    words = [word for tokens in rows.inputs["tokens"].to_pylist() for word in tokens]
    inputs = pa.table({"text": pa.array(words, pa.string())})
    return replace(
        target,
        task=Task(type="single_label", classes=target.task.classes),
        labelled=Rows(
            tuple(f"{rows.ids[row]} {at - starts[row]}" for at, row in enumerate(of)),
            tuple(rows.content[row] for row in of),
            tuple(rows.groups[row] for row in of),
            inputs,
            np.array([number[tag] for tags in labels for tag in tags], dtype=np.int64),
        ),
        unlabelled=Rows((), (), (), inputs.slice(0, 0)),
        folds=replace(target.folds, of=tuple(tuple(np.array(one)[of].tolist()) for one in target.folds.of)),
    )


def starts_of_words(target: Target) -> Array:
    """(rows + 1,) where the words of each labelled row begin among all of them; what is no sentence counts as one."""
    labels = target.labelled.labels
    if target.task.type != "tagging" or labels is None:
        return np.arange(len(target.labelled) + 1)
    return starts_of([len(tags) for tags in labels])


class WordPool(Pool):
    """The words of sentences that have features, which are at hand, by their names.

    sentences: their inputs. kept: which of all their words have features.
    """

    def __init__(self, opener: Opener, ids: Sequence[str], features: Array, sentences: pa.Table, kept: Array) -> None:
        super().__init__(opener, ids, pa.table({"text": pa.array([""] * len(ids), pa.string())}), None)
        self._features, self._sentences, self._kept = features, sentences, kept

    def take(self, ids: Sequence[str]) -> Array:
        """(words, width) float32 of the words of these names, in this order."""
        return np.asarray(self._features[np.array([self._at[name] for name in ids], dtype=np.int64)])

    def predictions(self, rows: Rows) -> Array:
        """(words, outputs) of the source's own head for words. Raises `Refused` where it has none."""
        return np.asarray(self._said[np.array([self._at[name] for name in rows.ids], dtype=np.int64)])

    @cached_property
    def _said(self) -> Array:
        return self._opener.opened.predictions(self._sentences)[self._kept]


class Seen:
    """What methods see of the labelled rows of a target: the rows themselves, or the words that have features.

    target, pool: as a view takes them. lost: how many words have no features.
    """

    def __init__(self, target: Target, opener: Opener | None, pool: Pool | None) -> None:
        self._whole, self._of_tags = by_words(target), target.task.type == "tagging"
        self.target, self.pool, self.lost = self._whole, pool, 0
        self._starts = starts_of_words(target)
        self._seen = np.ones(int(self._starts[-1]), dtype=bool)
        if not self._of_tags or pool is None or opener is None:
            return
        features = pool.take(target.labelled.ids)
        pool.release()
        self._seen = np.asarray(~np.isnan(features).any(axis=1))
        self.lost = int((~self._seen).sum())
        if self.lost:
            kept = np.flatnonzero(self._seen)
            rows, features = self._whole.labelled.take(kept.tolist()), features[kept]
            of = tuple(tuple(np.array(one)[kept].tolist()) for one in self._whole.folds.of)
            self.target = replace(self._whole, labelled=rows, folds=replace(self._whole.folds, of=of))
        self.pool = WordPool(opener, self.target.labelled.ids, features, target.labelled.inputs, self._seen)

    def told(self, predictions: Array, cell: tuple[int, int] | None) -> Array:
        """Predictions of all rows that a cell scores, from those of the rows that were seen.

        A word that was not is given the shares of the tags among the words that were trained on.
        """
        if cell is None or not self.lost:
            return predictions
        train, valid = self._whole.folds.sides(*cell)
        labels, seen = self._whole.labelled.labels, self._seen[valid]
        assert labels is not None
        known = labels[[row for row in train if self._seen[row]]]
        shares = np.bincount(known, minlength=predictions.shape[1]) / max(len(known), 1)
        found = np.tile(shares, (len(valid), 1))
        found[seen] = predictions
        return found

    def by_row(self, losses: Array) -> Array:
        """Losses of the target's own rows: of a sentence the mean over its words, NaN where one is not scored."""
        if not self._of_tags:
            return losses
        whole = np.full(len(self._seen), np.nan)
        whole[self._seen] = losses
        lengths = np.diff(self._starts)
        return np.bincount(owners(self._starts), weights=whole, minlength=len(lengths)) / lengths


def tags_of(target: Target, rows: Sequence[int] | Array, table: Array) -> list[list[str]]:
    """The tags of these rows by a table (words of all rows, classes): of each word the likeliest."""
    classes, starts = np.array(target.task.classes, dtype=object), starts_of_words(target)
    return [classes[table[starts[row] : starts[row + 1]].argmax(axis=1)].tolist() for row in rows]
