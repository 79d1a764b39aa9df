"""Parts of a change: the entries and the directions of it that are kept.

Forms that depend on the base (`Masked`, DoRA's low-rank) have no parts without it, and are refused; whole tensors stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch

from headstart.core import Unfit

from .delta import (
    Delta,
    Dense,
    Form,
    LowRank,
    Masked,
    Whole,
    bytes_of,
    check_bases,
    dense,
    kept_by,
    needs_base,
    scaled,
    scattered,
    shape_of,
)  # fmt: skip
from .order import order
from .singular import rank_of

Side = Literal["columns", "rows"]


def entries_kept(form: Form, kept: torch.Tensor) -> Form:
    """The change where a bit is set, 0 elsewhere; sparse or dense, whichever is smaller. kept: booleans of its shape.

    >>> entries_kept(Dense(torch.tensor([1.0, 2.0, 3.0, 4.0])), torch.tensor([False, False, True, False]))
    Sparse(shape=(4,), places=tensor([4], dtype=torch.uint8), values=tensor([3.]))
    """
    values = dense(form)
    picked = kept & (values != 0)
    places = picked.flatten().nonzero().flatten()
    few, all_of_it = (
        scattered(tuple(values.shape), places, values.flatten()[places]),
        Dense(torch.where(picked, values, 0)),
    )
    return few if bytes_of(few) < bytes_of(all_of_it) else all_of_it


def support(form: Form) -> torch.Tensor:
    """(…) booleans: the entries that a change is about. A mask is about those it keeps, a whole tensor about all."""
    if isinstance(form, Masked):
        return kept_by(form)
    if isinstance(form, Whole):
        return torch.ones(form.values.shape, dtype=torch.bool)
    return dense(form) != 0


def onto(form: Form, other: Form, rank: int, side: Side = "columns") -> Form:
    """The part of a matrix that lies in the span of the other's first singular directions: U Uᵀ X, or X V Vᵀ.

    Directions of the other that are no more than rounding are none. Low-rank where that is smaller.
    """
    directions = _directions(other, rank, side)
    change = _matrix(form)
    low = (
        LowRank(shape_of(form), directions.float(), (directions.T @ change).float())
        if side == "columns"
        else LowRank(shape_of(form), (change @ directions).float(), directions.T.float())
    )
    small = directions.shape[1] * sum(change.shape) < change.numel()
    return low if small else Dense(dense(low))


def off(form: Form, other: Form, rank: int, side: Side = "columns") -> Form:
    """What is left of a matrix without its part in that span: X - U Uᵀ X, or X - X V Vᵀ; low-rank if it was."""
    directions = _directions(other, rank, side)
    if isinstance(form, LowRank):
        left, right = form.left.double(), form.right.double()
        if side == "columns":
            return replace(form, left=(left - directions @ (directions.T @ left)).float())
        return replace(form, right=(right - (right @ directions) @ directions.T).float())
    change = _matrix(form)
    part = directions @ (directions.T @ change) if side == "columns" else (change @ directions) @ directions.T
    return Dense((change - part).float().view(shape_of(form)))


def _directions(other: Form, rank: int, side: Side) -> torch.Tensor:
    """(rows or columns, at most rank) float64, orthonormal."""
    matrix = _matrix(other)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    count = min(rank, rank_of(values.float(), matrix.shape))  # of numbers that are float32
    found: torch.Tensor = left[:, :count] if side == "columns" else right[:count].T
    return found


def _matrix(form: Form) -> torch.Tensor:
    return dense(form).double().flatten(1)


# -- whole deltas ------------------------------------------------------------------------------------------------------


def multiplied(delta: Delta, by: float) -> Delta:
    """by · every change; whole tensors stay. Raises `Unfit` for forms that depend on the base."""
    return _each(delta, "scaled", lambda _, change: scaled(change, by))


def limited(delta: Delta, other: Delta, *, outside: bool = False) -> Delta:
    """Every change where the other has one, or keeps an entry by a mask; outside: where it has none.

    Of tensors that the other has not, nothing is left, or with `outside` everything.
    """

    check_bases([delta, other])

    def one(name: str, change: Form) -> Form | None:
        theirs = other.changes.get(name)
        if theirs is None:
            return change if outside else None
        _check_shapes(name, change, theirs)
        about = support(theirs)
        return entries_kept(change, ~about if outside else about)

    return _each(delta, "masked", one)


def trimmed(delta: Delta, density: float, per: Literal["tensor", "model"] = "tensor") -> Delta:
    """The largest changes: exactly round(density · entries) of each tensor or of all together, of equal ones the first.

    At least one of each tensor, or of all. Fewer where more entries than that did not change.
    """
    if per == "tensor":
        return _each(delta, "trimmed", lambda _, change: entries_kept(change, _largest(change, density)))
    sizes = {n: dense(c).abs().flatten().numpy() for n, c in _linear(delta, "trimmed")}
    total = sum(len(s) for s in sizes.values())
    if not total:
        return delta
    count = max(1, round(density * total))
    found = order(_counted(sizes), [(0, total - count)], 1)[0]
    spare = count - (total - found.upto)  # how many of the entries of the last size are kept

    def one(name: str, change: Form) -> Form:
        nonlocal spare
        size = torch.from_numpy(sizes[name])
        last = (size == found.value) & ((size == found.value).cumsum(0) <= spare)
        spare -= int(last.sum())
        return entries_kept(change, ((size > found.value) | last).view(shape_of(change)))

    return _each(delta, "trimmed", one)


def projected(delta: Delta, other: Delta, rank: int, *, side: Side = "columns", away: bool = False) -> Delta:
    """Every matrix in the span of the other's first singular directions, or away from it; vectors stay as they are.

    Of matrices that the other has not, or keeps whole, nothing is left, or everything.
    """

    check_bases([delta, other])

    def one(name: str, change: Form) -> Form | None:
        if len(shape_of(change)) < 2:
            return change
        theirs = other.changes.get(name)
        if theirs is None or isinstance(theirs, Whole):
            return change if away else None
        _check_shapes(name, change, theirs)
        if needs_base(theirs):
            raise _bound(name, theirs, "projected onto")
        return (off if away else onto)(change, theirs, rank, side)

    return _each(delta, "projected", one)


def _each(delta: Delta, what: str, change: Callable[[str, Form], Form | None]) -> Delta:
    """Every change but whole tensors replaced, or left out."""
    made: dict[str, Form | None] = {name: change(name, form) for name, form in _linear(delta, what)}
    kept = {name: made.get(name, form) for name, form in delta.changes.items()}
    return replace(delta, changes={name: form for name, form in kept.items() if form is not None})


def _linear(delta: Delta, what: str) -> Iterator[tuple[str, Form]]:
    for name, form in delta.changes.items():
        if needs_base(form):
            raise _bound(name, form, what)
        if not isinstance(form, Whole):
            yield name, form


def _largest(form: Form, density: float) -> torch.Tensor:
    size = dense(form).abs().flatten().nan_to_num(nan=0.0, posinf=float("inf"))
    kept = torch.zeros(len(size), dtype=torch.bool)
    kept[size.argsort(descending=True, stable=True)[: max(1, round(density * len(size)))]] = True
    return kept.view(shape_of(form))


def _counted(sizes: Mapping[str, np.ndarray[Any, Any]]) -> Any:
    """One pass over all sizes, as `order` asks for it."""

    def run(count: Callable[[int, Any, Any], None], start: Callable[[], Any]) -> list[Any]:
        held = start()
        for one in sizes.values():
            count(0, one, held)
        return [held]

    return run


def _check_shapes(name: str, change: Form, other: Form) -> None:
    if shape_of(change) != shape_of(other):
        raise Unfit(
            f"the changes of `{name}` have shapes {shape_of(change)} and {shape_of(other)}",
            where="delta",
            fix="use deltas of one base and one architecture",
        )


def _bound(name: str, form: Form, what: str) -> Unfit:
    return Unfit(
        f"the change of `{name}` has the form `{type(form).__name__.lower()}`, which depends on its base, and cannot "
        f"be {what} alone",
        where="delta",
        fix="apply the delta to its base, and take the difference again",
    )
