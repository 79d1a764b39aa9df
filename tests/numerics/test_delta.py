"""Deltas: every form against numbers done by hand or a dense twin, and the arithmetic of all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headstart.core import Unfit
from headstart.numerics import delta as d

SHAPES = st.sampled_from([(5, 7), (8, 3), (4, 2, 3, 3), (9,), (1, 6), (70,)])


def draw(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def product(shape: tuple[int, ...], rank: int, seed: int) -> d.LowRank:
    rest = draw(shape, 0).flatten(1).shape[1]
    return d.LowRank(shape, draw((shape[0], rank), seed), draw((rank, rest), seed + 1), 0.5)


def forms(shape: tuple[int, ...], seed: int) -> list[d.Form]:
    """One of each that needs no base."""
    change = draw(shape, seed)
    found: list[d.Form] = [
        d.Dense(change), d.sparse(change, 0.3), d.one_bit(change), d.one_bit(change, rows=True), d.quantised(change, 8),
        d.quantised(change, 4), d.Sum((d.Dense(change), d.sparse(change, 0.1))),
    ]  # fmt: skip
    return [*found, product(shape, 2, seed)] if len(shape) > 1 else found


@given(SHAPES, st.integers(0, 1000))
def test_what_is_added_scaled_or_multiplied_is_what_its_numbers_are(shape: tuple[int, ...], seed: int) -> None:
    every = forms(shape, seed)
    for form in every:
        numbers = d.dense(form)
        assert numbers.shape == shape == d.shape_of(form)
        torch.testing.assert_close(d.dense(d.scaled(form, -2.5)), -2.5 * numbers)
        base = draw(shape, seed + 5)
        torch.testing.assert_close(d.applied(form, base), base + numbers)
        for other in (form, every[0], every[-1]):
            both = numbers + d.dense(other)
            torch.testing.assert_close(d.dense(d.added([form, other])), both, atol=1e-5, rtol=1e-5)
            exact = float((numbers.double() * d.dense(other).double()).sum())
            assert abs(d.inner(form, other) - exact) < 1e-4 * (1 + abs(exact))


@given(SHAPES, st.integers(0, 1000), st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
def test_a_difference_gives_the_tuned_tensor_back(shape: tuple[int, ...], seed: int, dtype: torch.dtype) -> None:
    base = draw(shape, seed, dtype)
    base.view(-1)[0] = -0.0
    tuned = (base.float() + 0.1 * draw(shape, seed + 1)).to(dtype)
    tuned.view(-1)[0] = -0.0
    exact = d.difference(base, tuned, exact=True)
    assert exact is not None
    assert torch.equal(d.applied(exact, base).view(-1).view(torch.uint8), tuned.view(-1).view(torch.uint8))
    near = d.difference(base, tuned)
    assert isinstance(near, d.Dense)
    size = torch.maximum(base.float().abs(), tuned.float().abs())
    off = (d.applied(near, base).float() - tuned.float()).abs()
    assert bool((off <= torch.finfo(dtype).eps * 2 * size + torch.finfo(dtype).tiny).all())
    assert d.bytes_of(exact) == d.bytes_of(near)


def test_a_difference_of_equal_odd_or_unlike_tensors() -> None:
    w = torch.tensor([1.0, float("inf")])
    assert d.difference(w, w.clone()) is None
    minus = d.difference(torch.tensor([0.0]), torch.tensor([-0.0]), exact=True)  # other bits, and no difference
    assert minus is not None
    assert str(d.applied(minus, torch.tensor([0.0])).item()) == "-0.0"
    for base, tuned in (
        (torch.zeros(2), torch.zeros(3)),
        (torch.tensor([1, 2]), torch.tensor([1, 3])),
        (torch.tensor([float("inf")]), torch.tensor([1.0])),
    ):
        found = d.difference(base, tuned)
        assert isinstance(found, d.Whole)
        assert torch.equal(found.values, tuned)
    other = d.difference(torch.zeros(2), torch.ones(2, dtype=torch.bfloat16))  # the result has the base's type
    assert isinstance(other, d.Dense)
    assert d.applied(other, torch.zeros(2)).dtype == torch.float32
    assert isinstance(d.difference(torch.zeros(2), torch.ones(2, dtype=torch.bfloat16), exact=True), d.Whole)


def test_sparse_keeps_the_largest_and_of_equal_ones_the_first() -> None:
    kept = d.sparse(torch.tensor([[1.0, -3.0], [3.0, 1.0]]), 0.75)
    assert d.places_of(kept).tolist() == [0, 1, 2]
    assert d.dense(kept).tolist() == [[1.0, -3.0], [3.0, 0.0]]
    assert d.dense(d.sparse(torch.tensor([1.0, 2.0]), 0.01)).tolist() == [0.0, 2.0]  # at least one


@given(st.integers(0, 1000), st.integers(1, 700), st.floats(0, 1))
def test_places_are_held_in_the_fewest_bytes(seed: int, size: int, density: float) -> None:
    change = draw((size,), seed)
    places = (draw((size,), seed + 1).argsort()[: round(density * size)]).sort().values
    kept = d.scattered((size,), places, change[places])
    assert torch.equal(d.places_of(kept), places)
    wanted = torch.zeros(size)
    wanted[places] = change[places]
    assert torch.equal(d.dense(kept), wanted)
    assert d.bytes_of(kept) == 4 * len(places) + min(4 * len(places), -(-size // 8))
    assert torch.equal(d.dense(d.Sparse((size,), places, change[places])), wanted)  # as files of format 1 have it


@given(st.integers(0, 1000), st.integers(1, 6))
def test_low_rank_is_the_nearest_of_its_rank(seed: int, rank: int) -> None:
    change = draw((9, 6), seed)
    values = torch.linalg.svdvals(change)
    lost = (d.dense(d.low_rank(change, rank)) - change).norm()
    torch.testing.assert_close(lost, values[rank:].square().sum().sqrt(), atol=1e-5, rtol=1e-4)
    whole = product((9, 6), 4, seed)
    torch.testing.assert_close(
        d.dense(d.truncated(whole, rank)), d.dense(d.low_rank(d.dense(whole), rank)), atol=1e-4, rtol=1e-4
    )


def test_side_by_side_is_the_exact_sum() -> None:
    a, b = product((5, 7), 2, 0), product((5, 7), 3, 9)
    both = d.added([a, b])
    assert isinstance(both, d.LowRank)
    assert both.left.shape == (5, 5)
    torch.testing.assert_close(d.dense(both), d.dense(a) + d.dense(b))


def test_one_bit_has_the_size_that_is_nearest_in_squares() -> None:
    change = draw((6, 11), 0)
    best = d.dense(d.one_bit(change))
    for factor in (0.9, 1.1):
        assert (change - best).norm() < (change - factor * best).norm()
    rows = d.dense(d.one_bit(change, rows=True))
    assert (change - rows).norm() < (change - best).norm()
    assert d.dense(d.one_bit(torch.tensor([0.0, -1.0]))).tolist() == [0.5, -0.5]
    assert d.bytes_of(d.one_bit(draw((64, 64), 0))) == 64 * 64 // 8 + 4


@given(st.integers(1, 200), st.sampled_from([8, 4]), st.integers(0, 1000))
def test_quantised_numbers_are_within_half_a_step_of_their_block(size: int, bits: Any, seed: int) -> None:
    change = draw((size,), seed)
    held = d.quantised(change, bits)
    step = held.scales.repeat_interleave(held.block)[:size]
    assert bool(((d.dense(held) - change).abs() <= step / 2 * (1 + 1e-5)).all())
    assert d.dense(d.quantised(torch.zeros(size), bits)).tolist() == [0.0] * size


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_masks_keep_what_they_say(kept: list[bool]) -> None:
    base = draw((len(kept),), 0)
    bits = torch.tensor(kept)
    mask = d.masked(bits)
    assert torch.equal(d.applied(mask, base), base * bits)
    torch.testing.assert_close(d.dense(mask, base), base * bits - base)
    for call in (lambda: d.dense(mask), lambda: d.scaled(mask, 2.0), lambda: d.added([mask, mask])):
        with pytest.raises(Unfit, match="depends on its base"):
            call()


def test_dora_sets_the_length_of_every_row() -> None:
    base, low = draw((4, 6), 0), product((4, 6), 2, 3)
    lengths = torch.tensor([1.0, 2.0, 3.0, 4.0])
    out = d.applied(d.LowRank(low.shape, low.left, low.right, low.scale, lengths), base)
    torch.testing.assert_close(out.norm(dim=1), lengths)
    with pytest.raises(Unfit, match="cannot be truncated alone"):
        d.truncated(d.LowRank(low.shape, low.left, low.right, low.scale, lengths), 1)
    moved = base + d.dense(low)
    torch.testing.assert_close(out / lengths[:, None], moved / moved.norm(dim=1, keepdim=True))


def test_stacking_adds_deltas_of_one_base_and_refuses_others() -> None:
    head = d.Whole(torch.ones(2))
    a = d.Delta("b", {"w": d.Dense(torch.tensor([1.0, 2.0])), "head": head})
    b = d.Delta("b", {"w": d.Sparse((2,), torch.tensor([1]), torch.tensor([4.0])), "v": d.Dense(torch.ones(1))})
    both = d.stacked([a, b], [1.0, 0.5])
    assert d.dense(both.changes["w"]).tolist() == [1.0, 4.0]
    assert d.dense(both.changes["v"]).tolist() == [0.5]
    assert both.changes["head"] is head
    with pytest.raises(Unfit, match="2 bases"):
        d.stacked([a, d.Delta("c", {})], [1, 1])
    with pytest.raises(Unfit, match="replaced as a whole"):
        d.stacked([a, d.Delta("b", {"head": d.Whole(torch.zeros(2))})], [1, 1])
