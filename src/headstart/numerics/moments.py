"""Moments: sufficient statistics of features and labels, in one pass, in float64, mergeable and subtractable.

Let u = x - shift with the shift fixed at the first batch's mean, so that features far from zero lose no digits, and
let y be the row's targets: one column a class (0 or 1), or one column with the value for regression.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.linalg.blas import dger, dsyrk
from scipy.sparse import csr_array

from headstart.core import Unfit

from .shrinkage import ledoit_wolf, squared

Array = np.ndarray[Any, Any]
PANEL_ROWS = 256  # rows that one symmetric product takes: they come out of the cache that they were written to
STRIP_CELLS = 98304  # cells of float64 that stay in a core's cache while all sums but that product are taken of them
MIRROR_SIDE = 64  # of a square of the Gram matrix that is written at once
MANY_CELLS = 1 << 20  # from which on compiled kernels pay: such features are summed up for many layers and poolings
FEW_CLASSES = 16  # up to which rows are put in order of class, so that each class is one sum; else row after row
SINGLE_ROWS = 512  # rows of a product in float32; its error grows with them
SINGLE_RANGE = 1e-12, 1e12  # of the largest number in a block, so that no square leaves float32


def targets_of(labels: Array, classes: int) -> Array:
    """Labels as columns (rows, classes) of 0 and 1, or (rows, 1) values where classes is 0; float64.

    >>> targets_of(np.array([1, 0]), 2).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    given = np.asarray(labels)
    if not classes:
        return given.astype(np.float64).reshape(len(given), 1)
    if given.ndim == 2:
        return given.astype(np.float64)
    hot = np.zeros((len(given), classes))
    hot[np.arange(len(given)), given.astype(np.int64)] = 1.0
    return hot


def pays_to_compile(features: Array) -> bool:
    """Whether a pass over all of these is long enough for the kernels of `sums`, and they lie as these need."""
    return features.size >= MANY_CELLS and features.dtype.char in "fd" and bool(features.flags.c_contiguous)


def product(left: Array, right: Array, *, single: bool = False) -> Array:
    """left' right of (rows, K) and (rows, D) float64, in float64; with `single` multiplied in float32.

    In float32, blocks of at most 512 rows are multiplied and summed in float64. The error of entry (i, j) is then at
    most 2⁻²⁴ · (rows of a block + 2) · √(Σ left_i² · Σ right_j²), so below 3.1e-5 of that root, and in practice far
    less. A block whose largest number is not from 1e-12 to 1e12 is multiplied in float64.

    >>> product(np.ones((3, 1)), np.full((3, 1), 2.0), single=True).tolist()
    [[6.0]]
    """
    if not single:
        return np.asarray(left.T @ right)
    total = np.zeros((left.shape[1], right.shape[1]))
    for s in slices(len(left), SINGLE_ROWS):
        a, b = left[s], right[s]
        low, high = SINGLE_RANGE
        fits = all(low <= np.abs(x).max(initial=0.0) <= high for x in (a, b))
        near = a.astype(np.float32) if fits else a
        total += near.T @ (near if a is b or left is right else b.astype(np.float32) if fits else b)
    return total


def slices(rows: int, block: int) -> Iterator[slice]:
    """Consecutive blocks of rows.

    >>> [(s.start, s.stop) for s in slices(5, 2)]
    [(0, 2), (2, 4), (4, 5)]
    """
    return (slice(at, min(at + block, rows)) for at in range(0, rows, block))


@dataclass(frozen=True, eq=False, slots=True)
class Moments:
    """Sums over rows of u = x - shift and y - target_shift; memory O(D² + K·D), K columns of targets.

    total: (D,) of u. squares: (D,) of u². counts, energy: (K,) of y and y². sums: (K, D) of y u'. lengths: (K,) of
    y |u|² (classes only). gram: (D, D) of u u', or None. second: (K, D) of y u'² (classes only), or None. norms: of
    |u|⁴ and (D,) of |u|² u, which with the Gram give Ledoit and Wolf's shrinkage exactly, or None.
    """

    rows: int
    classes: int
    shift: Array
    target_shift: Array
    total: Array
    squares: Array
    counts: Array
    energy: Array
    sums: Array
    lengths: Array | None = None
    gram: Array | None = None
    second: Array | None = None
    norms: tuple[float, Array] | None = None

    @classmethod
    def of(
        cls,
        features: Array,
        labels: Array,
        classes: int,
        *,
        block: int = PANEL_ROWS,
        gram: bool = True,
        second: bool = False,
        norms: bool = False,
        single: bool = False,
        many: bool | None = None,
    ) -> Moments:
        """Of features (rows, width) of any float type, read in blocks of rows; classes 0 means regression.

        single: multiply the Gram matrix in float32, with the bound that `product` states. many: as `from_batches` takes
        it; None goes by these features.

        >>> Moments.of(np.array([[1.0], [3.0]]), np.array([0, 1]), 2).mean.tolist()
        [2.0]
        """
        batches = ((features[s], labels[s]) for s in slices(len(features), block))
        many = pays_to_compile(features) if many is None else many
        return cls.from_batches(batches, classes, gram=gram, second=second, norms=norms, single=single, many=many)

    @classmethod
    def from_batches(
        cls,
        batches: Iterable[tuple[Array, Array]],
        classes: int,
        *,
        gram: bool = True,
        second: bool = False,
        norms: bool = False,
        single: bool = False,
        many: bool = False,
        shift: Array | None = None,
        target_shift: Array | None = None,
    ) -> Moments:
        """Of (features, labels) pairs; only what is asked is accumulated. Raises `Unfit` when there are no rows.

        many: whether so many rows are to come that compiled kernels pay. shift, target_shift: what the rows are taken
        less of; by default the first batch's means.
        """
        if second and not classes:
            raise Unfit(
                "second moments by class of a regression target",
                where="Moments(second=True)",
                fix="leave second out, or give the number of classes",
            )
        sums: _Sums | None = None
        for features, labels in batches:
            if not len(features):
                continue
            if shift is None:
                shift = np.asarray(np.mean(features, axis=0, dtype=np.float64))
            if target_shift is None:
                y = targets_of(labels, classes)
                target_shift = np.zeros(y.shape[1]) if classes else y.mean(axis=0)
            if sums is None:
                sums = _Sums(
                    classes, shift, target_shift, gram=gram, second=second, norms=norms, single=single, many=many
                )
            for s in slices(len(features), PANEL_ROWS):
                sums.take(features[s], labels[s])
        if sums is None:
            raise Unfit("no rows to take moments of", where="Moments", fix="give at least one labelled row")
        return sums.told()

    def updated(self, features: Array, labels: Array) -> Moments:
        """With more rows: the same statistics of them, about the same shift."""
        one = Moments.from_batches(
            [(features, labels)],
            self.classes,
            gram=self.gram is not None,
            second=self.second is not None,
            norms=self.norms is not None,
            shift=self.shift,
            target_shift=self.target_shift,
        )
        return self + one

    def times(self, weight: int) -> Moments:
        """As if each row were there this many times, at least once.

        >>> Moments.of(np.array([[1.0], [3.0]]), np.array([0, 1]), 2).times(3).counts.tolist()
        [3.0, 3.0]
        """
        return Moments(
            rows=weight * self.rows,
            classes=self.classes,
            shift=self.shift,
            target_shift=self.target_shift,
            total=weight * self.total,
            squares=weight * self.squares,
            counts=weight * self.counts,
            energy=weight * self.energy,
            sums=weight * self.sums,
            lengths=None if self.lengths is None else weight * self.lengths,
            gram=None if self.gram is None else weight * self.gram,
            second=None if self.second is None else weight * self.second,
            norms=None if self.norms is None else (weight * self.norms[0], weight * self.norms[1]),
        )

    def affine(self, weight: Array, bias: Array) -> Moments:
        """Of the same rows' W x + b, weight (E, D) and bias (E,), without a second pass; exact algebra, O(E·D²).

        Second moments, lengths and norms need sums that are not kept, and are left out. Raises `Unfit` without a Gram.

        >>> of_x = Moments.of(np.array([[1.0], [3.0]]), np.array([0, 1]), 2)
        >>> of_x.affine(np.array([[2.0]]), np.array([5.0])).class_means.tolist()
        [[7.0], [11.0]]
        """
        if self.gram is None:
            raise Unfit("these moments have no Gram matrix", where="Moments.affine", fix="accumulate with gram=True")
        w = np.asarray(weight, dtype=np.float64)
        gram = w @ self.gram @ w.T
        return Moments(
            rows=self.rows,
            classes=self.classes,
            shift=w @ self.shift + bias,
            target_shift=self.target_shift,
            total=w @ self.total,
            squares=np.diagonal(gram).copy(),
            counts=self.counts,
            energy=self.energy,
            sums=self.sums @ w.T,
            gram=gram,
        )

    def arrays(self) -> dict[str, Array]:
        """Everything by name as float64 arrays, for a file; `of_arrays` reads it back, bit for bit."""
        kept = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("rows", "classes", "norms")}
        if self.norms is not None:
            kept |= {"fourth": np.array([self.norms[0]]), "cubes": self.norms[1]}
        kept["sizes"] = np.array([self.rows, self.classes], dtype=np.float64)
        return {name: np.asarray(value, dtype=np.float64) for name, value in kept.items() if value is not None}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, Array]) -> Moments:
        """From `arrays`. Raises `Unfit` where a name is missing, or shapes do not agree."""
        held = {name: np.asarray(a, dtype=np.float64) for name, a in arrays.items()}
        width, columns = held.get("shift", np.empty(0)).size, held.get("counts", np.empty(0)).size
        shapes: dict[str, tuple[int, ...]] = {
            "sizes": (2,), "shift": (width,), "target_shift": (columns,), "total": (width,), "squares": (width,),
            "counts": (columns,), "energy": (columns,), "sums": (columns, width),
        }  # fmt: skip
        extra = {"gram": (width, width), "second": (columns, width), "fourth": (1,), "cubes": (width,)}
        extra |= {"lengths": (columns,)}
        shapes |= {name: shape for name, shape in extra.items() if name in held}
        wrong = [name for name, shape in shapes.items() if name not in held or held[name].shape != shape]
        wrong += [name for name in held if name not in shapes]
        wrong += [name for name, a in held.items() if name in shapes and not np.isfinite(a).all()]
        if wrong or ("fourth" in held) != ("cubes" in held):
            raise Unfit(
                f"these arrays are no moments: {', '.join(sorted(set(wrong))) or 'fourth, cubes'} missing or misshapen",
                where="Moments.of_arrays",
                fix="give what `Moments.arrays` gave",
            )
        rows, classes = (int(n) for n in held.pop("sizes"))
        norms = (float(held.pop("fourth")[0]), held.pop("cubes")) if "fourth" in held else None
        return cls(rows=rows, classes=classes, norms=norms, **held)

    def __add__(self, other: Moments) -> Moments:
        return self._combined(other, 1)

    def __sub__(self, other: Moments) -> Moments:
        """The rest, when `other` holds some of the rows in `self`."""
        return self._combined(other, -1)

    def _combined(self, other: Moments, sign: int) -> Moments:
        """What both sides have, about this side's shift."""
        near = other.about(self.shift, self.target_shift)
        return Moments(
            rows=self.rows + sign * near.rows,
            classes=self.classes,
            shift=self.shift,
            target_shift=self.target_shift,
            total=self.total + sign * near.total,
            squares=self.squares + sign * near.squares,
            counts=self.counts + sign * near.counts,
            energy=self.energy + sign * near.energy,
            sums=self.sums + sign * near.sums,
            lengths=None if self.lengths is None or near.lengths is None else self.lengths + sign * near.lengths,
            gram=None if self.gram is None or near.gram is None else self.gram + sign * near.gram,
            second=None if self.second is None or near.second is None else self.second + sign * near.second,
            norms=None
            if self.norms is None or near.norms is None
            else (self.norms[0] + sign * near.norms[0], self.norms[1] + sign * near.norms[1]),
        )

    def about(self, shift: Array, target_shift: Array) -> Moments:
        """The same rows' sums about another shift; exact algebra, O(D²). Norms are kept only beside a Gram."""
        d, e = self.shift - shift, self.target_shift - target_shift
        if not d.any() and not e.any():
            return self
        n, s, gram, second, norms = self.rows, self.total, self.gram, self.second, None
        if self.norms is not None and gram is not None:
            fourth, cubes = self.norms
            dd, sd, spread = float(d @ d), float(s @ d), float(np.trace(gram))
            norms = (
                fourth + 4 * float(d @ gram @ d) + n * dd**2 + 4 * float(cubes @ d) + 2 * dd * spread + 4 * dd * sd,
                cubes + spread * d + 2 * gram @ d + 2 * sd * d + dd * s + n * dd * d,
            )
        if gram is not None:
            gram = gram + np.outer(s, d) + np.outer(d, s) + n * np.outer(d, d)
        if second is not None:
            second = second + 2 * self.sums * d + np.outer(self.counts, d * d)
        lengths = self.lengths
        if lengths is not None:
            lengths = lengths + 2 * self.sums @ d + self.counts * float(d @ d)
        return Moments(
            rows=n,
            classes=self.classes,
            shift=shift,
            target_shift=target_shift,
            total=s + n * d,
            squares=self.squares + 2 * s * d + n * d * d,
            counts=self.counts + n * e,
            energy=self.energy + 2 * e * self.counts + n * e * e,
            sums=self.sums + np.outer(self.counts, d) + np.outer(e, s) + n * np.outer(e, d),
            lengths=lengths,
            gram=gram,
            second=second,
            norms=norms,
        )

    @property
    def width(self) -> int:
        return len(self.shift)

    @property
    def mean(self) -> Array:
        """(D,) of the features."""
        return np.asarray(self.shift + self.total / self.rows)

    @property
    def target_mean(self) -> Array:
        """(K,) of the targets: class shares, or the mean value."""
        return np.asarray(self.target_shift + self.counts / self.rows)

    @property
    def variance(self) -> Array:
        """(D,) with 1/N."""
        return np.maximum(self.squares / self.rows - (self.total / self.rows) ** 2, 0.0)

    @property
    def class_means(self) -> Array:
        """(C, D); a class without rows has the shift's place."""
        return np.asarray(self.shift + self.sums / np.maximum(self.counts, 1.0)[:, None])

    @property
    def class_variances(self) -> Array:
        """(C, D) with 1/rows of the class; 0 for a class without rows. Raises `Unfit` without second moments."""
        if self.second is None:
            raise Unfit("these moments have no second moments", where="Moments", fix="accumulate with second=True")
        counts = np.maximum(self.counts, 1.0)[:, None]
        return np.maximum(self.second / counts - (self.sums / counts) ** 2, 0.0)

    @property
    def class_spreads(self) -> Array:
        """(C,) mean squared distance of a class's rows to its mean; 0 for a class without rows.

        Raises `Unfit` for a regression target, and for moments made by `affine`.
        """
        if self.lengths is None:
            raise Unfit("these moments have no lengths by class", where="Moments", fix="take them of rows with classes")
        counts = np.maximum(self.counts, 1.0)
        inside = self.lengths / counts - np.square(self.sums / counts[:, None]).sum(axis=1)
        return np.asarray(np.maximum(inside, 0.0))

    @property
    def centred_gram(self) -> Array:
        """(D, D) of (x - mean)(x - mean)', the caller's to keep. Raises `Unfit` when no Gram was accumulated."""
        if self.gram is None:
            raise Unfit("these moments have no Gram matrix", where="Moments", fix="accumulate with gram=True")
        found = np.array(self.gram, order="F")
        return np.asarray(dger(-1.0 / self.rows, self.total, self.total, a=found, overwrite_a=True))

    @property
    def centred_sums(self) -> Array:
        """(K, D) of (y - its mean)(x - mean)'."""
        return np.asarray(self.sums - np.outer(self.counts, self.total / self.rows))

    @property
    def centred_energy(self) -> Array:
        """(K,) of (y - its mean)²."""
        return np.maximum(self.energy - self.counts**2 / self.rows, 0.0)

    @property
    def within_gram(self) -> Array:
        """(D, D) of (x - its class mean)(x - its class mean)', for one class a row."""
        if self.gram is None:
            raise Unfit("these moments have no Gram matrix", where="Moments", fix="accumulate with gram=True")
        roots = self.sums / np.sqrt(np.maximum(self.counts, 1.0))[:, None]
        return np.asarray(self.gram - roots.T @ roots)

    def inverse_deviation(self, whole: Moments | None = None) -> Array:
        """(D,) 1/standard deviation, and 0 for a constant feature, so that it drops out.

        Constant is: below 1e-9 of the feature's mean, or below 1e-5 of its deviation in `whole`, from which these
        moments were made by subtraction (what is left there may be rounding).
        """
        spread = np.sqrt(self.variance)
        floor = 1e-9 * np.abs(self.mean)
        if whole is not None:
            floor = np.maximum(floor, 1e-5 * np.sqrt(whole.variance))
        alive = spread > floor
        return np.where(alive, 1.0 / np.where(alive, spread, 1.0), 0.0)

    @property
    def shrinkage(self) -> float:
        """Ledoit and Wolf's intensity for the total covariance; needs the Gram and norms."""
        if self.norms is None:
            raise Unfit("these moments have no norms", where="Moments", fix="accumulate with gram=True, norms=True")
        centred = self.about(self.mean, self.target_shift)
        if centred.norms is None or centred.gram is None:
            raise Unfit("these moments have no Gram matrix", where="Moments", fix="accumulate with gram=True")
        covariance = centred.gram / self.rows
        return ledoit_wolf(
            trace=float(np.trace(covariance)),
            squares=squared(covariance),
            fourth=centred.norms[0],
            rows=self.rows,
            width=self.width,
        )


def _mirrored(gram: Array) -> None:
    """The upper half into the lower one, in place, in squares that stay in the cache.

    >>> gram = np.array([[1.0, 2.0], [0.0, 3.0]])
    >>> _mirrored(gram)
    >>> gram.tolist()
    [[1.0, 2.0], [2.0, 3.0]]
    """
    for down in slices(len(gram), MIRROR_SIDE):
        for across in slices(down.start, MIRROR_SIDE):
            gram[down, across] = gram[across, down].T
        square = gram[down, down]
        square += np.triu(square, 1).T


class _Sums:
    """The sums of `Moments`, while rows are still coming."""

    def __init__(
        self, classes: int, shift: Array, target_shift: Array, *,
        gram: bool, second: bool, norms: bool, single: bool, many: bool,
    ) -> None:  # fmt: skip
        width, columns = len(shift), len(target_shift)
        self.classes, self.shift, self.target_shift, self.single, self.many = classes, shift, target_shift, single, many
        self.rows, self.fourth, self.each_once = 0, 0.0, False
        self.total, self.squares, self.counts = np.zeros(width), np.zeros(width), np.zeros(columns)
        self.energy, self.sums = np.zeros(columns), np.zeros((columns, width))
        self.lengths = np.zeros(columns) if classes else None
        self.gram = np.zeros((width, width), order="F") if gram else None
        self.second = np.zeros((columns, width)) if second else None
        self.cubes = np.zeros(width) if norms else None
        self.panel = np.empty((0, width))

    def take(self, features: Array, labels: Array) -> None:
        """Rows, not more than `PANEL_ROWS`."""
        # with one class a row, what is summed by class need not be summed once more over all
        self.each_once = bool(self.classes) and np.ndim(labels) == 1 and not self.target_shift.any()
        self.rows += len(features)
        if self.many and self.each_once and self.second is None and self.cubes is None:
            self._in_one_sweep(features, np.asarray(labels, dtype=np.int64))
        else:
            y = targets_of(labels, self.classes)
            y -= self.target_shift
            self.counts += y.sum(axis=0)
            self.energy += (y * y).sum(axis=0)
            self._by_strips(features, labels, y)
        if self.gram is not None:
            u = self.panel[: len(features)]
            if self.single:
                self.gram += product(u, u, single=True)
                self.squares += np.einsum("nd,nd->d", u, u)  # the diagonal has but the digits of float32
            else:
                self.gram = dsyrk(1.0, u.T, beta=1.0, c=self.gram, overwrite_c=True)  # the upper half, in place

    def _in_one_sweep(self, features: Array, labels: Array) -> None:
        """Sums and lengths by class; with a Gram matrix the panel it is made of, else the squares."""
        from .sums import centred, squared

        assert self.lengths is not None  # as there are classes
        counts = np.bincount(labels, minlength=self.classes)
        if len(counts) > self.classes:
            raise IndexError(f"label {labels.max()} of {self.classes} classes")  # the kernels would not see it
        self.counts += counts
        self.energy += counts  # of zeros and ones
        if self.gram is None:
            squared(features, labels, self.shift, self.sums, self.lengths, self.squares)
            return
        self._hold(len(features))
        centred(features, labels, self.shift, self.sums, self.lengths, self.panel)

    def _hold(self, rows: int) -> None:
        """Room for so many."""
        if len(self.panel) < rows:
            self.panel = np.empty((rows, len(self.shift)))

    def _by_strips(self, features: Array, labels: Array, y: Array) -> None:
        """All sums of a strip while it lies in the cache."""
        strip = min(max(STRIP_CELLS // max(len(self.shift), 1), 32), PANEL_ROWS)
        self._hold(len(features) if self.gram is not None else min(strip, len(features)))
        for s in slices(len(features), strip):
            u = self.panel[s] if self.gram is not None else self.panel[: s.stop - s.start]
            rows, known, targets = features[s], labels[s], y[s]
            if self.each_once and self.classes <= FEW_CLASSES:
                order = np.argsort(known, kind="stable")
                rows, known, targets = rows[order], known[order], targets[order]
            u[...] = rows
            u -= self.shift  # a copy, then in place: half the time of a subtraction that casts
            self._add(u, targets, known if self.each_once else None)

    def _add(self, u: Array, y: Array, labels: Array | None) -> None:
        """All but the Gram matrix, of u (rows, D) and targets (rows, K).

        labels: where each row is of one class, in order of class where those are few.
        """
        columns: Any = y.T
        ones = np.ones(len(u))
        if labels is not None and self.classes > FEW_CLASSES:
            at = np.arange(len(u))
            columns = csr_array((ones, (labels.astype(np.int64), at)), shape=(self.classes, len(u)))
        if labels is not None and self.classes <= FEW_CLASSES:
            ends = np.searchsorted(labels, np.arange(self.classes + 1)).tolist()
            for c, (begin, end) in enumerate(pairwise(ends)):
                self.sums[c] += ones[begin:end] @ u[begin:end]
        else:
            self.sums += columns @ u
        if labels is None:
            self.total += u.sum(axis=0)
        if self.lengths is not None or self.cubes is not None:
            long = np.vecdot(u, u)
            if self.lengths is not None:
                self.lengths += columns @ long
            if self.cubes is not None:
                self.fourth += float(long @ long)
                self.cubes += long @ u
        if self.gram is None:
            self.squares += np.einsum("nd,nd->d", u, u)
        if self.second is not None:
            self.second += columns @ np.square(u)

    def told(self) -> Moments:
        gram = self.gram
        self.panel = np.empty((0, len(self.shift)))  # its memory is there for what follows
        if gram is not None and not self.single:
            _mirrored(gram)
            self.squares = np.diagonal(gram).copy()
        if self.each_once:
            self.total = self.sums.sum(axis=0)
        return Moments(
            rows=self.rows,
            classes=self.classes,
            shift=self.shift,
            target_shift=self.target_shift,
            total=self.total,
            squares=self.squares,
            counts=self.counts,
            energy=self.energy,
            sums=self.sums,
            lengths=self.lengths,
            gram=gram,
            second=self.second,
            norms=None if self.cubes is None else (self.fourth, self.cubes),
        )
