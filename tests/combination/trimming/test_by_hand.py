"""Trimmings on numbers done by hand, and against a sort of all entries in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headstart.combination.trimming.breadcrumbs import Breadcrumbs
from headstart.combination.trimming.pcb import Pcb
from headstart.combination.trimming.ties import Ties
from headstart.core import Unfit
from headstart.testing.merges import merged
from models_on_a_grid import doubles, elected_mean, families, holds

Weights = dict[str, torch.Tensor]


def run(method: Any, *changes: list[float]) -> list[float]:
    """Changes of a base of zeros."""
    tuned = [{"w": torch.tensor(c)} for c in changes]
    return merged("trimming", method, {"w": torch.zeros(len(changes[0]))}, tuned)["w"].tolist()


def test_ties_of_the_chapter() -> None:
    assert run(Ties(density=1.0), [4.0, -1.0, 2.0], [-2.0, -3.0, 3.0]) == [4.0, -2.0, 2.5]


def test_ties_keeps_as_many_as_it_says_and_of_equal_ones_the_first() -> None:
    assert run(Ties(density=0.5), [1.0, -1.0, 1.0, 1.0]) == [1.0, -1.0, 0.0, 0.0]
    assert run(Ties(density=0.25), [1.0, -3.0, 2.0, 0.0]) == [0.0, -3.0, 0.0, 0.0]
    assert run(Ties(density=0.1), [1.0, 2.0]) == [0.0, 0.0]  # round(0.2) entries


def test_ties_where_signs_cancel_takes_what_more_entries_have() -> None:
    a, b = [1.0, -2.0, -5.0], [-1.0, -2.0, -5.0]
    assert run(Ties(density=1.0), a, b) == [-1.0, -2.0, -5.0]  # most entries fall
    assert run(Ties(density=1.0, undecided="plus"), a, b) == [1.0, -2.0, -5.0]
    assert run(Ties(density=1.0), [1.0, -1.0], [-1.0, 1.0]) == [0.0, 0.0]  # as many rise as fall


def test_ties_takes_weights_into_election_and_mean() -> None:
    a, b = [1.0, 4.0], [-2.0, 2.0]
    assert run(Ties(density=1.0, weights=(3, 1)), a, b) == [3.0, 7.0]  # weighted changes over their number
    assert run(Ties(density=1.0, weights=(3, 1), average="weight"), a, b) == [1.0, 3.5]
    assert run(Ties(density=1.0, weights=(3, 1), average="sum"), a, b) == [3.0, 14.0]


@given(st.integers(0, 1000), st.sampled_from([(1.0, 1.0, 1.0), (0.9, 0.1, 2.0), (1.5, -0.5, 0.25)]))
def test_ties_by_plain_election_is_what_peft_computes(seed: int, weights: tuple[float, ...]) -> None:
    """Against `peft.utils.merge_utils.ties` itself, which elects before it weighs."""
    from peft.utils.merge_utils import ties

    changes = list(torch.randn(3, 20, 10, generator=torch.Generator().manual_seed(seed)))
    method = Ties(density=0.3, weights=weights, trim="tensor", elect="plain", undecided="plus")
    ours = merged("trimming", method, {"w": torch.zeros(20, 10)}, [{"w": c} for c in changes], tile=64)["w"]
    torch.testing.assert_close(ours, ties(changes, torch.tensor(weights), 0.3))
    weighed = Ties(density=0.3, weights=weights, trim="tensor", undecided="plus")
    other = merged("trimming", weighed, {"w": torch.zeros(20, 10)}, [{"w": c} for c in changes])["w"]
    assert torch.equal(other, ours) == (len(set(weights)) == 1)  # else another election


def test_ties_by_plain_election_with_majority_by_hand() -> None:
    a, b = [1.0, 4.0, -6.0], [-1.0, -5.0, -6.0]
    assert run(Ties(density=1.0, weights=(3, 1), elect="plain"), a, b) == [-1.0, -5.0, -12.0]  # the first is undecided
    assert run(Ties(density=1.0, weights=(3, 1)), a, b) == [3.0, 12.0, -12.0]


def test_one_threshold_holds_for_the_model_or_for_a_tensor() -> None:
    base = {"a": torch.zeros(2), "b": torch.zeros(2)}
    tuned = [{"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0, 4.0])}]
    whole = merged("trimming", Ties(density=0.5), base, tuned)
    assert (whole["a"].tolist(), whole["b"].tolist()) == ([0.0, 0.0], [3.0, 4.0])
    alone = merged("trimming", Ties(density=0.5, trim="tensor"), base, tuned)
    assert (alone["a"].tolist(), alone["b"].tolist()) == ([0.0, 2.0], [0.0, 4.0])


def sorted_ties(base: Weights, tuned: list[Weights], density: float, scale: float) -> Weights:
    """TIES of the paper over one long vector of all tensors, sorted by name."""
    names = sorted(base)
    flat = torch.cat([base[n].float().flatten() for n in names])
    trimmed = []
    for one in tuned:
        change = torch.cat([one[n].float().flatten() for n in names]) - flat
        order = change.abs().argsort(descending=True, stable=True)[: round(density * len(flat))]
        kept = torch.zeros_like(change)
        kept[order] = change[order]
        trimmed.append(kept)
    changes = torch.stack(trimmed)
    sign = changes.sum(dim=0).sign()
    sign[sign == 0] = changes.sum(dim=0).sign().sum().sign()
    agrees = changes * sign > 0
    mean = (changes * agrees).sum(dim=0) / agrees.sum(dim=0).clamp_min(1)
    out = flat + scale * mean
    sizes = [base[n].numel() for n in names]
    return {n: v.view(base[n].shape).to(base[n].dtype) for n, v in zip(names, out.split(sizes), strict=True)}


@given(st.integers(0, 1000), st.sampled_from([0.05, 0.2, 0.5]), st.sampled_from([torch.bfloat16, torch.float32]))
def test_ties_equals_a_sort_of_all_entries_to_the_bit(seed: int, density: float, dtype: torch.dtype) -> None:
    """In bfloat16 thousands of entries are equal at the threshold; tiles of 2,048 cut through them."""
    g = torch.Generator().manual_seed(seed)
    base = {n: torch.randn(*s, generator=g).to(dtype) for n, s in {"b": (90, 70), "a": (33,), "c": (5, 40)}.items()}
    tuned = [{n: (w + 0.05 * torch.randn(w.shape, generator=g)).to(dtype) for n, w in base.items()} for _ in range(3)]
    ours = merged("trimming", Ties(density=density, scale=0.5), base, tuned, tile=2048, threads=2)
    expected = sorted_ties(base, tuned, density, 0.5)
    for name, weight in expected.items():
        assert torch.equal(ours[name], weight)


def test_breadcrumbs_keep_the_middle() -> None:
    # of four changes the largest is an outlier and the smallest is negligible
    assert run(Breadcrumbs(density=0.5, outliers=0.25, scale=1.0), [4.0, -3.0, 2.0, 1.0]) == [0.0, -3.0, 2.0, 0.0]
    ten = [float(i) for i in range(1, 11)]
    assert run(Breadcrumbs(density=0.5, outliers=0.2, scale=1.0), ten) == [0, 0, 0, 4, 5, 6, 7, 8, 0, 0]
    with pytest.raises(Unfit, match="together at most 1"):
        Breadcrumbs(density=0.9, outliers=0.2)


@pytest.mark.parametrize("clip", [0.0001, 0.01])
def test_pcb_equals_the_published_formula_over_one_long_vector(clip: float) -> None:
    g = torch.Generator().manual_seed(0)
    base = {"a": torch.randn(40, 30, generator=g), "b": torch.randn(30, generator=g)}
    tuned = [{n: w + 0.1 * torch.randn(w.shape, generator=g) for n, w in base.items()} for _ in range(3)]
    flat = torch.stack([torch.cat([(t[n] - base[n]).flatten() for n in base]) for t in tuned])
    entries = flat.shape[1]

    def between(x: torch.Tensor, low: int, high: int) -> tuple[torch.Tensor, torch.Tensor]:
        ends = x.sort(dim=1).values[:, [low, high]]
        clamped = x.clamp(ends[:, :1], ends[:, 1:])
        return clamped, (clamped - ends[:, :1]) / (ends[:, 1:] - ends[:, :1])

    size, inside = between(flat.abs(), int(entries * clip), int(entries * (1 - clip) - 1))
    score = torch.exp(3 * inside**2) * torch.tanh(flat * flat.sum(dim=0))
    _, weight = between(score, int(entries * 0.9), entries - 1)
    expected = (flat.sign() * size * weight).sum(dim=0) / weight.sum(dim=0).clamp_min(1e-12)
    ours = merged("trimming", Pcb(clip=clip, scale=1.0), base, tuned, tile=1 << 9)
    got = torch.cat([(ours[n] - base[n]).flatten() for n in base])
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-4)  # of float32 numbers near 1


@given(
    families(),
    st.sampled_from([(0.85, 0.01), (0.5, 0.25), (0.3, 0.0), (0.9, 0.1)]),
    st.sampled_from(["sum", "elect"]),
    st.sampled_from(["count", "weight", "sum"]),
)
def test_breadcrumbs_against_a_sort(
    family: list[torch.Tensor], shares: tuple[float, float], consensus: Any, average: Any
) -> None:
    base, changes = doubles(family)
    density, outliers = shares
    weights = np.linspace(1, 0.5, len(changes))
    kept = np.zeros_like(changes)
    for k, change in enumerate(changes):
        order = np.argsort(-np.abs(change).ravel(), kind="stable")
        middle = order[round(outliers * change.size) : round((density + outliers) * change.size)]
        kept[k].flat[middle] = weights[k] * change.flat[middle]
    total = elected_mean(kept, weights, average) if consensus == "elect" else kept.sum(axis=0)
    method = Breadcrumbs(
        density=density, outliers=outliers, scale=0.7, weights=tuple(weights), consensus=consensus, average=average
    )
    holds("trimming", method, family, base + 0.7 * total)
