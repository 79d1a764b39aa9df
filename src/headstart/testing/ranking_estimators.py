"""What an estimator must do, and what it may claim. Laws draw small Gaussian classes, and hold for any seed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from itertools import pairwise
from operator import add
from typing import Any

import numpy as np

from headstart.core import Needs, Ranking, Score, TaskType, Undeclared, Unfit
from headstart.numerics.chunks import Chunks, standard_error
from headstart.numerics.moments import Moments, targets_of

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class SeenView:
    """A view of plain arrays, which lets a method touch only what its needs declare.

    grouped: the groups; where there are none, each row is one of its own. told: the reference; where there is none,
    that of a system which is always right.
    """

    needs: Needs
    given: Array
    known: Array
    folds: Array
    classes: int
    task: TaskType = "single_label"
    grouped: Array | None = None
    told: Array | None = None
    kept: dict[str, Moments] = field(default_factory=dict)

    def _check(self, name: str, gift: str) -> None:
        if gift not in self.needs.gives:
            raise Undeclared(f"touches {name} undeclared", where="needs", fix=f'declare gives=("{gift}",)')

    @property
    def groups(self) -> Array:
        return np.arange(len(self.known)) if self.grouped is None else self.grouped

    @property
    def labels(self) -> Array:
        if not self.needs.labels:
            raise Undeclared("touches labels undeclared", where="needs", fix="declare labels=True")
        return self.known

    @property
    def features(self) -> Array:
        self._check("features", "features")
        return self.given

    @property
    def moments(self) -> Moments:
        self._check("moments", "features")
        if "moments" not in self.kept:
            self.kept["moments"] = Moments.of(self.given, self.labels, self.classes)
        return self.kept["moments"]

    @property
    def class_moments(self) -> Moments:
        self._check("class_moments", "features")
        if "moments" not in self.kept and "class_moments" not in self.kept:
            self.kept["class_moments"] = Moments.of(self.given, self.labels, self.classes, gram=False)
        return self.kept.get("moments") or self.kept["class_moments"]

    @cached_property
    def chunks(self) -> Chunks:
        self._check("chunks", "features")
        return Chunks.of(self.given, self.labels, self.classes)

    @property
    def class_chunks(self) -> Chunks:
        return self.chunks

    @property
    def predictions(self) -> Array:
        """(rows, width) probabilities, by a softmax of the features: a source with a class for each of them."""
        self._check("predictions", "predictions")
        e = np.exp(self.given - self.given.max(axis=1, keepdims=True))
        return np.asarray(e / e.sum(axis=1, keepdims=True), dtype=np.float64)

    @property
    def reference(self) -> Array:
        if not self.needs.reference:
            raise Undeclared("touches the reference undeclared", where="needs", fix="declare reference=True")
        if self.told is not None:
            return self.told
        right = targets_of(self.known, self.classes)
        return np.where(self.folds[:, None] >= 0, right, np.nan)


def draw(seed: int, rows: int = 60, width: int = 8, classes: int = 3, apart: float = 2.0) -> tuple[Array, Array]:
    """Features (rows, width) float64 around class means that are `apart` standard deviations wide, and labels."""
    chance = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    return apart * chance.standard_normal((classes, width))[labels] + chance.standard_normal((rows, width)), labels


def falling(chance: np.random.Generator, rows: int, width: int) -> Array:
    """Noise (rows, width) whose variances fall off as those of encoders do, in turned axes."""
    turn, _ = np.linalg.qr(chance.standard_normal((width, width)))
    return np.asarray(chance.standard_normal((rows, width)) * np.arange(1, width + 1) ** -0.7 @ turn)


def dealt(labels: Array, k: int = 5) -> Array:
    """Folds: rows of each class dealt in turn; the only row of a class is in no scored fold."""
    labels = np.asarray(labels)
    folds = np.arange(len(labels)) % k
    if labels.ndim == 1 and labels.dtype.kind in "iu":
        for c in np.unique(labels):
            at = np.flatnonzero(labels == c)
            folds[at] = np.arange(len(at)) % k if len(at) > 1 else -1
    return folds


def seen(
    method: Ranking, features: Array, labels: Array, classes: int = 3, task: TaskType = "single_label", **more: Any
) -> SeenView:
    folds = more.pop("folds", dealt(labels))
    return SeenView(needs=method.needs, given=features, known=labels, folds=folds, classes=classes, task=task, **more)


def score(method: Ranking, features: Array, labels: Array, classes: int = 3, **more: Any) -> float:
    return method(seen(method, features, labels, classes, **more)).value


def heard(method: Ranking, features: Array, labels: Array, **more: Any) -> float | None:
    """The score, or None where the method refuses."""
    try:
        return score(method, features, labels, **more)
    except Unfit:
        return None


def told(method: Ranking, seed: int, features: Array, labels: Array, *, noise: float = 1.0) -> Iterator[dict[str, Any]]:
    """The target as each task that a method covers has it: labels, how many classes, and the task.

    Several labels a row are two of the classes, with noise; a value is a feature and `noise` times as much noise. Words
    are seen as rows of one class, see `words`: one in three has a tag, and the others are `O`.
    """
    chance, rows = np.random.default_rng((seed, len(labels))), len(labels)
    known: dict[TaskType, tuple[Array, int]] = {
        "single_label": (labels, 3),
        "multi_label": ((np.eye(3)[labels, :2] + 0.4 * chance.standard_normal((rows, 2)) > 0.5).astype(np.int8), 2),
        "regression": (features[:, 0] + noise * features[:, 0].std() * chance.standard_normal(rows), 0),
    }
    for task, (truth, classes) in known.items():
        if task in method.needs.tasks:
            yield {"labels": truth, "classes": classes, "task": task}
    if "tagging" in method.needs.tasks:
        yield words((labels == 2).astype(np.int64), 2)


def words(tags: Array, classes: int) -> dict[str, Any]:
    """Words as an estimator sees them: rows of one class each; three make a sentence, which is a group in one fold."""
    sentences = np.arange(len(tags)) // 3
    return {"labels": tags, "classes": classes, "task": "single_label", "grouped": sentences, "folds": sentences % 5}


def close(a: float | None, b: float | None) -> None:
    """Nearly equal, or refused both times."""
    if a is None or b is None:
        assert a is b, f"{a} is not {b}: refused on one side only"
    else:
        assert abs(a - b) <= 1e-5 * (1 + abs(a)), f"{a} is not {b}"


def well_formed(given: Score, rows: int, folds: Array) -> None:
    assert isinstance(given.value, float), f"value is a {type(given.value).__name__}"
    assert np.isfinite(given.value), f"value is {given.value}"
    if given.losses is not None:
        assert given.losses.shape == (rows,), f"losses are {given.losses.shape}, and there are {rows} rows"
        assert not np.isinf(given.losses).any(), "an infinite loss"
        assert np.isfinite(given.losses[folds >= 0]).all(), "a scored row has no loss"


def answers(method: Ranking, view: SeenView, rows: int) -> None:
    """A well-formed score; or a refusal, by one that does not claim to be safe where dimensions are many."""
    if "width_safe" in method.claims:
        well_formed(method(view), rows, view.folds)
        return
    with suppress(Unfit):
        well_formed(method(view), rows, view.folds)


def finite(method: Ranking, seed: int) -> None:
    """For every task it declares: few rows, more dimensions than rows, constant features, float32."""
    chance = np.random.default_rng(seed)
    for rows, width in ((60, 8), (6, 40), (7, 1)):
        features, labels = draw(seed, rows, width)
        known: dict[TaskType, tuple[Array, int]] = {
            "single_label": (labels, 3),
            "multi_label": ((chance.random((rows, 3)) < 0.4).astype(np.int8), 3),
            "regression": (features[:, 0] + chance.standard_normal(rows), 0),
        }
        targets: list[dict[str, Any]] = [
            {"labels": y, "classes": c, "task": task} for task, (y, c) in known.items() if task in method.needs.tasks
        ]
        if "tagging" in method.needs.tasks:
            targets.append(words(np.where(chance.random(rows) < 0.6, 0, labels), 3))
        for target in targets:
            for given in (features.astype(np.float32), np.zeros_like(features), np.full_like(features, 0.1)):
                answers(method, seen(method, given, **target), rows)


def survives_thin_classes(method: Ranking, seed: int) -> None:
    """A class with one row, a class with none, labels that never vary, and features far from zero."""
    if "single_label" not in method.needs.tasks:
        return
    features, labels = draw(seed, 20, 6)
    thin = np.where(np.arange(20) == 7, 2, labels % 2)
    for given, known, classes in (
        (features, thin, 3),
        (features + 1e6, thin, 3),
        (features, labels % 2, 4),
        (1e-6 * features, np.zeros(20, dtype=np.int64), 2),
    ):
        answers(method, seen(method, given, known, classes), 20)


def repeatable(method: Ranking, seed: int) -> None:
    """The same view gives the same bits, and is as it was."""
    features, labels = draw(seed, 240)  # as many rows as any estimator asks for
    view = seen(method, features, labels)
    kept = features.copy(), labels.copy(), view.folds.copy()
    first, again, fresh = method(view), method(view), method(seen(method, features, labels))
    assert first.value == again.value == fresh.value, "another call, another score"
    unchanged = (features, kept[0]), (labels, kept[1]), (view.folds, kept[2])
    assert all(np.array_equal(a, b) for a, b in unchanged), "changes its input"


def chunking(method: Ranking, seed: int) -> None:
    """Rows that were read in parts, whose moments were then put together, score as those read at once."""
    for rows, width in ((60, 8), (30, 40)):
        features, labels = draw(seed, rows, width)
        whole, parts = seen(method, features, labels), seen(method, features, labels)
        cuts = pairwise((0, 1, rows // 3, rows))
        parts.kept["moments"] = reduce(add, (Moments.of(features[a:b], labels[a:b], 3) for a, b in cuts))
        with suppress(Unfit):
            want, found = method(whole).value, method(parts).value
            assert abs(found - want) <= 1e-9 * (1 + abs(want)), f"{found} of parts, {want} of all rows"


def row_order(method: Ranking, seed: int) -> None:
    features, labels = draw(seed)
    folds, order = dealt(labels), np.random.default_rng(seed).permutation(len(labels))
    for target in told(method, seed, features, labels):
        given = {"folds": folds} | target
        other = {name: one[order] if isinstance(one, np.ndarray) else one for name, one in given.items()}
        close(heard(method, features, **given), heard(method, features[order], **other))


def class_names(method: Ranking, seed: int) -> None:
    """Classes by other numbers; of several labels a row, the columns in another order. A value has no names."""
    features, labels = draw(seed)
    for target in told(method, seed, features, labels):
        truth = target["labels"]
        if target["classes"]:
            other = np.roll(truth, 1, axis=1) if truth.ndim == 2 else (truth + 1) % target["classes"]
            close(heard(method, features, **target), heard(method, features, **target | {"labels": other}))


def rotation(method: Ranking, seed: int) -> None:
    for rows in (30, 12):
        features, labels = draw(seed, rows, 16)
        turn, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((16, 16)))
        for target in told(method, seed, features, labels):
            close(heard(method, features, **target), heard(method, features @ turn, **target))


def scale(method: Ranking, seed: int) -> None:
    for rows, factor in ((30, 1e4), (12, 1e-4)):
        features, labels = draw(seed, rows, 16)
        for target in told(method, seed, features, labels):
            close(heard(method, features, **target), heard(method, factor * features, **target))


def feature_scale(method: Ranking, seed: int) -> None:
    """Each feature in a unit of its own."""
    for rows in (30, 12):
        features, labels = draw(seed, rows, 16)
        units = 10 ** np.random.default_rng(seed).uniform(-2, 2, 16)
        for target in told(method, seed, features, labels):
            close(heard(method, features, **target), heard(method, features * units, **target))


def translation(method: Ranking, seed: int) -> None:
    for rows in (30, 12):
        features, labels = draw(seed, rows, 16)
        for target in told(method, seed, features, labels):
            close(heard(method, features, **target), heard(method, features + 100.0, **target))


def zero_columns(method: Ranking, seed: int) -> None:
    """Features that are always zero change nothing, also where they make the width exceed the rows."""
    features, labels = draw(seed)
    wide = np.hstack([features, np.zeros((60, 90))])
    for target in told(method, seed, features, labels):
        close(heard(method, features, **target), heard(method, wide, **target))


def prefers_signal(method: Ranking, seed: int) -> None:
    """The labels' own features score above the same features with the labels shuffled."""
    features, labels = draw(seed)
    order = np.random.default_rng(seed).permutation(len(labels))
    for target in told(method, seed, features, labels):
        shuffled = target | {"labels": target["labels"][order]}
        good, bad = score(method, features, **target), score(method, features, **shuffled)
        assert good > bad, f"{target['task']}: labels shuffled, and no worse"


def falls_with_label_noise(method: Ranking, seed: int) -> None:
    """With 15 %, 40 % and all of the labels shuffled among themselves the score is lower each time, in the mean.

    So for each task: of several labels a row the rows' sets of labels change places, and of words their tags. A value
    has less noise of its own than in other laws, as 120 rows would not tell 40 % more from all.
    """
    shares = (0.0, 0.15, 0.4, 1.0)
    found: dict[str, list[float]] = {}
    for number in range(6):
        chance = np.random.default_rng((seed, number))
        features, labels = draw(int(chance.integers(2**31)), 120)
        order = chance.permutation(120)
        for target in told(method, seed, features, labels, noise=0.3):
            for share in shares:
                at, noisy = order[: round(120 * share)], target["labels"].copy()
                noisy[at] = chance.permutation(noisy[at])
                of = "tagging" if "grouped" in target else target["task"]
                found.setdefault(of, []).append(score(method, features, **target | {"labels": noisy}))
    for task, scores in found.items():
        means = np.reshape(scores, (-1, len(shares))).mean(axis=0)
        assert (np.diff(means) < 0).all(), f"{task}: scores of {means}, by the share of labels that are noise {shares}"


def null_of_shuffled_labels(method: Ranking, seed: int) -> None:
    """Shuffled labels bring the score to its null: a quarter at most is left of what the classes were worth.

    The null is what features score that know nothing: one Gaussian with the mean and covariance of the classes' own, so
    that a score cannot tell the two but by classes. What a method sees in features whatever the labels are is left.
    Where few draws leave more, which one in two hundred times is chance, many decide.
    """
    for task, (worth, left) in _scores_of_shuffled(method, seed, 4).items():
        if abs(left) >= worth / 4:
            worth, left = _scores_of_shuffled(method, seed, 24)[task]
        assert abs(left) < worth / 4, f"{task}: labels are worth {worth:.3g} above the null, shuffled ones {left:.3g}"


def _scores_of_shuffled(method: Ranking, seed: int, draws: int) -> dict[str, tuple[float, float]]:
    """What labels are worth above the null and what shuffled ones are, by task; means over so many draws."""
    found: dict[str, list[tuple[float, float]]] = {}
    for number in range(draws):
        chance = np.random.default_rng((seed, number))
        features, labels = draw(int(chance.integers(2**31)), 120)
        for target in told(method, seed, features, labels):
            known = score(method, features, **target)
            for _ in range(3):
                noise = chance.multivariate_normal(features.mean(axis=0), np.cov(features.T), len(features))
                other = target | {"labels": chance.permutation(target["labels"])}
                shuffled, null = score(method, features, **other), score(method, noise, **target)
                of = "tagging" if "grouped" in target else target["task"]
                found.setdefault(of, []).append((known - null, shuffled - null))
    return {task: tuple(np.mean(scores, axis=0).tolist()) for task, scores in found.items()}


def width_safe(method: Ranking, seed: int) -> None:
    """Pure noise, however wide, scores below 32 dimensions that tell the class; also with few rows.

    Of one variance in all directions, and of variances that fall off as those of encoders do, in turned axes.
    """
    for rows in (100, 300):
        above_noise(method, seed, rows)


def above_noise(method: Ranking, seed: int, rows: int) -> None:
    """The law above, for so many rows."""
    features, labels = draw(seed, rows, 32, 4, apart=0.7)
    informed = score(method, features, labels, 4)
    for width in (64, 512, 4096):
        chance = np.random.default_rng((seed, width))
        heard = score(method, chance.standard_normal((rows, width)), labels, 4)
        assert heard < informed, f"{rows} rows: noise of width {width} scores {heard:.3f}, and signal {informed:.3f}"
    heard = score(method, falling(chance, rows, 384), labels, 4)
    assert heard < informed, f"{rows} rows: noise of uneven variances scores {heard:.3f}, and signal {informed:.3f}"


def jackknife(method: Ranking, seed: int) -> None:
    """Leaving parts out in turn gives the spread over fresh rows of the same classes, within a factor of two.

    Also where a method looks at no more rows than its setting `rows`.
    """
    of: Any = method
    for one in (method, replace(of, rows=60)) if hasattr(method, "rows") else (method,):
        tells_its_spread(one, seed)


def tells_its_spread(method: Ranking, seed: int) -> None:
    """The law above, for a method as it is."""
    chance, heard, told = np.random.default_rng(seed), [], []
    means, labels = 2.0 * chance.standard_normal((3, 8)), np.arange(150) % 3
    for number in range(40):
        view = seen(method, means[labels] + chance.standard_normal((150, 8)), labels)
        score = method(view)
        heard.append(score.value)
        if number < 8:
            error = standard_error(method, view, replace(score, losses=None, error=None))
            assert error is not None, "no error where nothing hinders it"
            told.append(error)
    spread, mean = float(np.std(heard, ddof=1)), float(np.sqrt(np.mean(np.square(told))))
    assert spread / 2 <= mean <= 2 * spread, f"an error of {mean}, and the scores of fresh rows spread by {spread}"


ALWAYS = [finite, survives_thin_classes, repeatable, chunking]
CLAIMS = {
    law.__name__: law
    for law in (
        row_order, class_names, rotation, scale, feature_scale, translation, zero_columns, prefers_signal,
        falls_with_label_noise, null_of_shuffled_labels, width_safe, jackknife,
    )
}  # fmt: skip
