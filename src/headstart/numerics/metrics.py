"""Values of the metrics named in `core.metrics`: of one table of predictions, and of many resampled ones at once.

Where a metric is a function of sums over rows (all but AUROC and Spearman), those sums are formed once for each row,
and a draw of the bootstrap is a weighted sum of them; so 2,000 draws cost one sparse product. 0/0 is 0 throughout.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from headstart.core import METRICS, Unfit

Array = np.ndarray[Any, Any]
Sums = tuple[Any, Callable[[Array], Array]]  # (rows, M) per-row terms, dense or sparse, and (B, M) totals -> (B,)


def value(name: str, labels: Array, predictions: Any, classes: int | Sequence[int] | None = None) -> float:
    """The metric of that name on these rows.

    labels: as in `Rows.labels`. predictions: (rows, outputs) probabilities or values; lists of tags for tagging. The
    class of a row is its largest column, the first of equals; in multi-label, each column of at least 0.5.
    classes: which classes macro averages run over, as numbers or as how many; None is those that the labels hold, so
    give it (from the whole test) when these rows are a part of something larger.

    >>> value("accuracy", np.array([0, 1]), np.array([[0.9, 0.1], [0.6, 0.4]]))
    0.5
    """
    return float(draws(name, labels, predictions, np.ones((1, len(labels))), classes)[0])


def draws(
    name: str, labels: Array, predictions: Any, weights: Array, classes: int | Sequence[int] | None = None
) -> Array:
    """(B,) values of the metric when row i counts weights[b, i] times; weights (B, rows), whole numbers from 0.

    The classes of macro averages are those of all rows given, also where a draw holds none of one class.
    Cost and memory: B × rows, for AUROC also × classes in time.

    >>> two = np.array([[1.0, 1.0], [0.0, 2.0]])
    >>> draws("accuracy", np.array([0, 1]), np.array([[0.9, 0.1], [0.6, 0.4]]), two).tolist()
    [0.5, 0.0]
    """
    return measure(name, labels, predictions, classes)(weights)


def measure(
    name: str, labels: Array, predictions: Any, classes: int | Sequence[int] | None = None
) -> Callable[[Array], Array]:
    """`draws` in two steps: what depends on the rows alone is computed here, once; weights are given to what returns.

    >>> measure("mae", np.array([1.0, 2.0]), np.array([[1.0], [5.0]]))(np.array([[1, 1]])).tolist()
    [1.5]
    """
    if not len(labels):
        raise Unfit("there are no rows to measure on", where=f"the metric `{name}`", fix="give at least one row")
    if name == "span_f1":
        return _summed(*_spans(labels, predictions))
    truth = np.asarray(labels)
    table = np.asarray(predictions, dtype=np.float64).reshape(len(truth), -1)
    if name == "auroc":
        return _auroc(truth, table, _chosen(truth, classes))
    if name == "spearman":
        return _spearman(truth, table)
    if name in OVER_CLASSES:
        return _summed(*OVER_CLASSES[name](truth, table, _chosen(truth, classes)))
    return _summed(*OVER_ROWS[name](truth, table))


def predicted(predictions: Array) -> Array:
    """(rows,) the class of each row: its largest column, the first of equals.

    >>> predicted(np.array([[0.5, 0.5], [0.2, 0.8]])).tolist()
    [0, 1]
    """
    return np.asarray(np.asarray(predictions).argmax(axis=1))


def confusion(labels: Array, predictions: Array, classes: int) -> Array:
    """(classes, classes) int64: rows are the labels, columns the predicted classes.

    >>> confusion(np.array([0, 1]), np.array([[0.9, 0.1], [0.6, 0.4]]), 2).tolist()
    [[1, 0], [1, 0]]
    """
    cells = np.asarray(labels, dtype=np.int64) * classes + predicted(predictions)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def row_losses(name: str, labels: Array, predictions: Array) -> Array:
    """(rows,) how badly each row went under a metric's own terms: negative log-likelihood for classes, squared error
    for numbers (absolute error for `mae`).

    >>> row_losses("mae", np.array([1.0, 2.0]), np.array([[1.0], [5.0]])).tolist()
    [0.0, 3.0]
    """
    truth, table = np.asarray(labels), np.asarray(predictions, dtype=np.float64).reshape(len(labels), -1)
    if truth.ndim == 2:
        p = np.clip(np.where(truth == 1, table, 1 - table), np.finfo(np.float64).eps, 1)
        return np.asarray(-np.log(p).sum(axis=1))
    if METRICS[name].tasks == ("regression",):
        error = np.abs(table[:, 0] - truth)
        return np.asarray(error if name == "mae" else error**2)
    return _log_losses(truth, table)


def bounds(name: str) -> tuple[float, float]:
    """The least and the greatest value that the metric can take.

    >>> bounds("rmse")
    (0.0, inf)
    """
    return {
        "log_loss": (0.0, np.inf),
        "rmse": (0.0, np.inf),
        "mae": (0.0, np.inf),
        "r2": (-np.inf, 1.0),
        "spearman": (-1.0, 1.0),
    }.get(name, (0.0, 1.0))


def _summed(terms: Any, finish: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return lambda weights: finish(np.asarray(np.asarray(weights, dtype=np.float64) @ terms))


def _chosen(truth: Array, classes: int | Sequence[int] | None) -> Array:
    if classes is not None:
        return np.arange(classes) if isinstance(classes, int) else np.asarray(classes, dtype=np.int64)
    if truth.ndim == 2:
        return np.flatnonzero(truth.any(axis=0))
    return np.unique(truth.astype(np.int64)) if truth.dtype.kind in "iub" else np.arange(0)


def _over(top: Array, bottom: Array) -> Array:
    return np.divide(top, bottom, out=np.zeros(np.broadcast(top, bottom).shape), where=bottom != 0)


def _indicator(codes: Array, classes: Array) -> Any:
    """(rows, len(classes)) sparse: which of the classes each row is; rows of other classes are empty."""
    order = np.argsort(classes)
    at = np.searchsorted(classes, codes, sorter=order).clip(max=max(len(classes) - 1, 0))
    column = order[at] if len(classes) else np.zeros(len(codes), dtype=np.int64)
    rows = np.flatnonzero(classes[column] == codes) if len(classes) else np.arange(0)
    return sparse.csr_array((np.ones(len(rows)), (rows, column[rows])), shape=(len(codes), len(classes)))


def _members(truth: Array, table: Array, classes: Array) -> tuple[Any, Any]:
    """Sparse indicators (rows, classes) of the labels and of the predictions."""
    if truth.ndim == 2:
        return (
            sparse.csr_array(truth[:, classes].astype(np.float64)),
            sparse.csr_array((table[:, classes] >= 0.5).astype(np.float64)),
        )
    return _indicator(truth, classes), _indicator(predicted(table), classes)


def _macro_f1(truth: Array, table: Array, classes: Array) -> Sums:
    real, said = _members(truth, table, classes)
    k = len(classes)

    def finish(t: Array) -> Array:
        f1 = _over(2 * t[:, :k], t[:, k:])  # 2 TP / (TP + FN + TP + FP), each class
        return f1.mean(axis=1) if k else np.zeros(len(t))

    return sparse.hstack([real * said, real + said]).tocsr(), finish


def _micro_f1(truth: Array, table: Array) -> Sums:
    if truth.ndim == 1:
        return _accuracy(truth, table)  # each row has one label and one prediction
    real, said = truth == 1, table >= 0.5
    terms = np.stack([(real & said).sum(axis=1), real.sum(axis=1) + said.sum(axis=1)], axis=1).astype(np.float64)
    return terms, lambda t: _over(2 * t[:, 0], t[:, 1])


def _mean(per_row: Array) -> Sums:
    terms = np.stack([per_row, np.ones(len(per_row))], axis=1)
    return terms, lambda t: _over(t[:, 0], t[:, 1])


def _accuracy(truth: Array, table: Array) -> Sums:
    return _mean((predicted(table) == truth).astype(np.float64))


def _balanced_accuracy(truth: Array, table: Array, classes: Array) -> Sums:
    real, said = _members(truth, table, classes)
    k = len(classes)

    def finish(t: Array) -> Array:
        return np.asarray(_over(t[:, :k], t[:, k:]).mean(axis=1))

    return sparse.hstack([real * said, real]).tocsr(), finish


def _log_losses(truth: Array, table: Array) -> Array:
    of_label = table[np.arange(len(truth)), truth.astype(np.int64)]
    return np.asarray(-np.log(np.clip(of_label, np.finfo(np.float64).eps, 1 - np.finfo(np.float64).eps)))


def _log_loss(truth: Array, table: Array) -> Sums:
    return _mean(_log_losses(truth, table))


def _rmse(truth: Array, table: Array) -> Sums:
    terms, mean = _mean((table[:, 0] - truth) ** 2)
    return terms, lambda t: np.sqrt(mean(t))


def _mae(truth: Array, table: Array) -> Sums:
    return _mean(np.abs(table[:, 0] - truth))


def _r2(truth: Array, table: Array) -> Sums:
    y = truth - truth.mean()  # a shift changes nothing but the rounding
    terms = np.stack([(table[:, 0] - truth) ** 2, y, y * y, np.ones(len(y))], axis=1)

    def finish(t: Array) -> Array:
        spread = t[:, 2] - _over(t[:, 1] ** 2, t[:, 3])
        flat = spread <= 1e-12 * np.maximum(t[:, 2], np.finfo(np.float64).tiny)  # one label only, but for rounding
        r2 = 1 - _over(t[:, 0], np.where(flat, 0.0, spread))
        return np.where(flat, np.where(t[:, 0] == 0, 1.0, 0.0), r2)  # as scikit-learn: 1 when exact, else 0

    return terms, finish


def spans(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """Kind, first and last word of each span that the tags of one row make, as seqeval reads them.

    >>> sorted(spans(["B-LOC", "I-LOC", "O", "B-PER"]))
    [('LOC', 0, 1), ('PER', 3, 3)]
    """
    from seqeval.metrics.sequence_labeling import get_entities

    with warnings.catch_warnings():  # a tag that is not of the form B-… or I-… is a warning there, each time
        warnings.simplefilter("ignore", UserWarning)
        return set(get_entities(list(tags)))


def _spans(labels: Any, predictions: Any) -> Sums:
    terms = np.zeros((len(labels), 2))
    for i, (real, said) in enumerate(zip(labels, predictions, strict=True)):
        a, b = spans(real), spans(said)
        terms[i] = 2 * len(a & b), len(a) + len(b)
    return terms, lambda t: _over(t[:, 0], t[:, 1])


def _auroc(truth: Array, table: Array, classes: Array) -> Callable[[Array], Array]:
    """Two columns: of the second; more: the mean over classes of one against the rest, where both sides have rows."""
    wanted = [1] if table.shape[1] == 2 else [int(c) for c in classes]
    sides = [(*_ties(table[:, c]), truth == c) for c in wanted]

    def of(weights: Array) -> Array:
        total, defined = np.zeros(len(weights)), np.zeros(len(weights))
        for order, starts, is_class in sides:
            w, real = weights[:, order], is_class[order]
            above = np.add.reduceat(w * real, starts, axis=1)
            below = np.add.reduceat(w * ~real, starts, axis=1)
            pairs = above.sum(axis=1) * below.sum(axis=1)
            total += _over((above * (below.cumsum(axis=1) - below / 2)).sum(axis=1), pairs)
            defined += pairs > 0
        return _over(total, defined)

    return of


def _spearman(truth: Array, table: Array) -> Callable[[Array], Array]:
    said, real = _ties(table[:, 0]), _ties(truth)

    def of(weights: Array) -> Array:
        rows = weights.sum(axis=1, keepdims=True)
        a, b = (r - _over((weights * r).sum(axis=1, keepdims=True), rows) for r in _ranks(weights, said, real))
        spread = np.sqrt((weights * a * a).sum(axis=1) * (weights * b * b).sum(axis=1))
        return _over((weights * a * b).sum(axis=1), spread)

    return of


def _ties(values: Array) -> tuple[Array, Array]:
    """The order from low to high, and where in it each new value starts."""
    order = np.argsort(values, kind="stable")
    new = np.diff(values[order], prepend=np.nan) != 0
    return order, np.flatnonzero(new)


def _ranks(weights: Array, *ties: tuple[Array, Array]) -> list[Array]:
    """(B, rows) average ranks for each ordering when row i stands weights[b, i] times in the list."""
    found = []
    for order, starts in ties:
        w = np.add.reduceat(weights[:, order], starts, axis=1)
        of_value = w.cumsum(axis=1) - (w - 1) / 2
        out = np.empty(weights.shape)
        out[:, order] = np.repeat(of_value, np.diff(starts, append=len(order)), axis=1)
        found.append(out)
    return found


OVER_CLASSES: dict[str, Callable[[Array, Array, Array], Sums]] = {
    "macro_f1": _macro_f1,
    "balanced_accuracy": _balanced_accuracy,
}
OVER_ROWS: dict[str, Callable[[Array, Array], Sums]] = {
    "accuracy": _accuracy,
    "micro_f1": _micro_f1,
    "log_loss": _log_loss,
    "rmse": _rmse,
    "mae": _mae,
    "r2": _r2,
}
