"""Parts of changes: every form against the same operation on dense float64 numbers, in numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headstart.core import Unfit
from headstart.numerics import delta as d
from headstart.numerics import delta_parts as parts

Array = np.ndarray[Any, Any]
SHAPES = st.sampled_from([(5, 7), (8, 3), (4, 2, 3, 3), (1, 6), (12, 12)])
VECTORS = st.sampled_from([(9,), (70,), (5, 7)])


def draw(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def forms(shape: tuple[int, ...], seed: int) -> dict[str, d.Form]:
    """One of each that needs no base."""
    change = draw(shape, seed)
    rest = change[0].numel()
    held: dict[str, d.Form] = {
        "dense": d.Dense(change), "half": d.Dense(change.bfloat16()), "sparse": d.sparse(change, 0.3),
        "onebit": d.one_bit(change, rows=True), "int8": d.quantised(change, 8), "int4": d.quantised(change, 4),
        "sum": d.Sum((d.Dense(change), d.sparse(change, 0.1))),
    }  # fmt: skip
    if len(shape) > 1:
        held["lowrank"] = d.LowRank(shape, draw((shape[0], 2), seed), draw((2, rest), seed + 1), 0.5)
    return held


def numbers(form: d.Form) -> Array:
    """The change in float64, computed here."""
    if isinstance(form, d.LowRank):
        found: Array = form.scale * form.left.double().numpy() @ form.right.double().numpy()
        return found.reshape(form.shape)
    if isinstance(form, d.Sum):
        return np.sum([numbers(p) for p in form.parts], axis=0)
    return d.dense(form).double().numpy()


def delta(changes: dict[str, d.Form]) -> d.Delta:
    return d.Delta("base", changes, ("gone",), {"method": "diff"})


def near(made: d.Delta, wanted: dict[str, Array]) -> None:
    assert list(made.changes) == list(wanted)
    for name, expected in wanted.items():
        scale = np.abs(expected).max() + 1
        np.testing.assert_allclose(d.dense(made.changes[name]).numpy(), expected, atol=2e-6 * scale, rtol=0)
    assert (made.base, made.gone) == ("base", ("gone",))


@given(VECTORS, st.integers(0, 1000), st.floats(-3, 3))
def test_multiplied(shape: tuple[int, ...], seed: int, by: float) -> None:
    held = forms(shape, seed)
    near(parts.multiplied(delta(held), by), {n: by * numbers(f) for n, f in held.items()})


@pytest.mark.parametrize("outside", [False, True])
@given(VECTORS, st.integers(0, 1000), st.sampled_from(["sparse", "mask", "dense", "whole", "none"]))
def test_limited_to_what_another_is_about(outside: bool, shape: tuple[int, ...], seed: int, kind: str) -> None:
    held = forms(shape, seed)
    about = draw(shape, seed + 7) > 0.5
    others: dict[str, d.Form] = {
        "sparse": d.Sparse(shape, about.flatten().nonzero().flatten(), torch.ones(int(about.sum()))),
        "mask": d.masked(about), "dense": d.Dense(about.float()), "whole": d.Whole(torch.zeros(shape)),
    }  # fmt: skip
    theirs = dict.fromkeys(held, others[kind]) if kind != "none" else {}
    made = parts.limited(delta(held), delta(theirs), outside=outside)
    where = np.ones(shape, bool) if kind == "whole" else about.numpy()
    if kind == "none":
        near(made, {n: numbers(f) for n, f in held.items()} if outside else {})
    else:
        near(made, {n: np.where(where ^ outside, numbers(f), 0) for n, f in held.items()})


@given(VECTORS, st.integers(0, 1000), st.sampled_from([0.01, 0.1, 0.5, 0.77, 1.0]))
def test_trimmed_tensor_by_tensor(shape: tuple[int, ...], seed: int, density: float) -> None:
    held = forms(shape, seed)
    wanted = {}
    for name, form in held.items():
        values = d.dense(form).double().numpy().ravel()
        count = max(1, round(density * values.size))
        kept = sorted(range(values.size), key=lambda i: (-abs(values[i]), i))[:count]
        wanted[name] = np.where(np.isin(np.arange(values.size), kept), values, 0).reshape(shape)
    near(parts.trimmed(delta(held), density), wanted)


@given(st.integers(0, 1000), st.sampled_from([0.001, 0.03, 0.25, 0.6, 1.0]), st.booleans())
def test_trimmed_over_the_model_keeps_exactly_so_many(seed: int, density: float, ties: bool) -> None:
    held = forms((6, 9), seed) | {f"v-{n}": f for n, f in forms((13,), seed + 1).items()}
    if ties:  # sizes that many entries share, and zeros
        held = {n: d.Dense(d.dense(f).mul(2).round()) for n, f in held.items()}
    everything = np.concatenate([d.dense(f).double().numpy().ravel() for f in held.values()])
    count = max(1, round(density * everything.size))
    order = sorted(range(everything.size), key=lambda i: (-abs(everything[i]), i))
    kept = np.where(np.isin(np.arange(everything.size), order[:count]), everything, 0)
    made = parts.trimmed(delta(held), density, "model")
    got = np.concatenate([d.dense(f).numpy().ravel() for f in made.changes.values()])
    assert np.array_equal(got, kept)
    assert np.count_nonzero(got) == min(count, np.count_nonzero(everything))


@pytest.mark.parametrize("side", ["columns", "rows"])
@given(SHAPES, st.integers(0, 1000), st.integers(1, 9), st.sampled_from(["dense", "lowrank", "sparse", "int8"]))
def test_projected_on_and_off_the_first_directions(
    side: Any, shape: tuple[int, ...], seed: int, rank: int, kind: str
) -> None:
    held = forms(shape, seed)
    other = forms(shape, seed + 50)[kind]
    u, s, vt = np.linalg.svd(numbers(other).reshape(shape[0], -1), full_matrices=False)
    count = min(rank, int((s > s[0] * 1e-5).sum()))
    span = u[:, :count] @ u[:, :count].T if side == "columns" else vt[:count].T @ vt[:count]
    if count < len(s) and s[count - 1] - s[count] < 0.02 * s[0]:
        return  # two directions of one strength: any of their plane may come first
    wanted = {}
    for name, form in held.items():
        matrix = numbers(form).reshape(shape[0], -1)
        wanted[name] = (span @ matrix if side == "columns" else matrix @ span).reshape(shape)
    theirs = delta(dict.fromkeys(held, other))
    on = parts.projected(delta(held), theirs, rank, side=side)
    off = parts.projected(delta(held), theirs, rank, side=side, away=True)
    near(on, wanted)
    near(off, {n: numbers(held[n]) - w for n, w in wanted.items()})
    assert isinstance(off.changes["lowrank"], d.LowRank)  # what was small stays small
    big = parts.onto(d.Dense(draw((12, 12), seed)), d.Dense(draw((12, 12), seed + 1)), 2, side)
    assert isinstance(big, d.LowRank)
    assert big.left.shape[1] == 2


def test_vectors_stay_and_matrices_that_the_other_has_not_go_or_stay_whole() -> None:
    held = delta({"w": d.Dense(draw((3, 4), 0)), "b": d.Dense(draw((4,), 1))})
    for theirs in (delta({}), delta({"w": d.Whole(torch.ones(3, 4))})):
        assert list(parts.projected(held, theirs, 1).changes) == ["b"]
        assert list(parts.projected(held, theirs, 1, away=True).changes) == ["w", "b"]


def test_directions_that_are_rounding_are_none() -> None:
    one = d.LowRank((6, 6), draw((6, 1), 0), draw((1, 6), 1))
    made = parts.onto(d.Dense(draw((6, 6), 2)), d.Dense(d.dense(one)), 5)
    assert torch.linalg.matrix_rank(d.dense(made)) == 1


OPERATIONS: dict[str, Callable[[d.Delta], d.Delta]] = {
    "scaled": lambda one: parts.multiplied(one, 2.0),
    "masked": lambda one: parts.limited(one, one),
    "trimmed": lambda one: parts.trimmed(one, 0.5),
    "trimmed over all": lambda one: parts.trimmed(one, 0.5, "model"),
    "projected": lambda one: parts.projected(one, one, 1),
}


@pytest.mark.parametrize("name", list(OPERATIONS))
def test_whole_tensors_stay_and_forms_that_need_the_base_are_refused(name: str) -> None:
    whole = d.Whole(torch.arange(3))
    kept = OPERATIONS[name](delta({"head": whole, "w": d.Dense(draw((3, 4), 0))}))
    assert kept.changes["head"] is whole
    dora = d.LowRank((3, 4), draw((3, 1), 0), draw((1, 4), 1), 1.0, torch.ones(3))
    for form in (d.masked(torch.ones(3, 4) > 0), dora, d.Sum((d.Dense(draw((3, 4), 0)), dora))):
        with pytest.raises(Unfit, match="depends on its base"):
            OPERATIONS[name](delta({"w": form}))
    assert OPERATIONS[name](delta({})).changes == {}


def test_other_bases_and_shapes_are_refused() -> None:
    one, other = delta({"w": d.Dense(draw((3, 4), 0))}), delta({"w": d.Dense(draw((4, 3), 0))})
    for call in (lambda b: parts.limited(one, b), lambda b: parts.projected(one, b, 1)):
        with pytest.raises(Unfit, match=r"have shapes \(3, 4\) and \(4, 3\)"):
            call(other)
        with pytest.raises(Unfit, match="2 bases"):
            call(d.Delta("another", {}))
