"""Routers: which of several experts an input is for, told by a small network from one vector of the input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from headstart.core import Learned, MergeView, Routed

from .delta import Form

Array = np.ndarray[Any, Any]
Layers = tuple[tuple[torch.Tensor, torch.Tensor], ...]  # (weight, bias) of each
HELD = 5  # one row in so many is kept to see how often the router is right
WEIGHT_DECAY = 1e-4


@dataclass(frozen=True, eq=False, slots=True)
class Router:
    """mean, spread (width,): of the vectors that it was fitted on. layers: (weight, bias) of each, ReLU between them.

    top: how many experts an input gets, the likeliest; the weights of those sum to one.
    """

    mean: torch.Tensor
    spread: torch.Tensor
    layers: Layers
    top: int = 1

    @property
    def experts(self) -> int:
        return len(self.layers[-1][1])

    @property
    def bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in tensors_of(self).values())

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """(rows, experts)"""
        return through(self.layers, (states - self.mean) / self.spread)

    def weights(self, states: torch.Tensor) -> torch.Tensor:
        """(rows, experts) a softmax, of which all but the largest are 0; of equal ones the first counts."""
        chances = torch.softmax(self.logits(states), dim=1)
        order = chances.argsort(dim=1, descending=True, stable=True)[:, : self.top]
        kept = torch.zeros_like(chances).scatter(1, order, chances.gather(1, order))
        return kept / kept.sum(dim=1, keepdim=True)


def tensors_of(router: Router) -> dict[str, torch.Tensor]:
    """All that a router holds, by name: `mean`, `spread`, `0.weight`, `0.bias`, and so on."""
    out = {"mean": router.mean, "spread": router.spread}
    for number, (weight, bias) in enumerate(router.layers):
        out |= {f"{number}.weight": weight, f"{number}.bias": bias}
    return out


def router_of(tensors: Mapping[str, torch.Tensor], top: int) -> Router:
    """The inverse of `tensors_of`. Raises ValueError for tensors that do not fit together."""
    count = sum(n.endswith(".weight") for n in tensors)
    wanted = {"mean", "spread", *(f"{i}.{part}" for i in range(count) for part in ("weight", "bias"))}
    if not count or set(tensors) != wanted:
        raise ValueError(f"a router has the tensors {', '.join(sorted(tensors))[:120]}")
    if any(t.dtype != torch.float32 or not bool(t.isfinite().all()) for t in tensors.values()):
        raise ValueError("a tensor of the router is not float32, or not finite")
    layers = tuple((tensors[f"{i}.weight"], tensors[f"{i}.bias"]) for i in range(count))
    mean = tensors["mean"].shape
    if not fit_together(layers) or not mean == tensors["spread"].shape == layers[0][0].shape[1:]:
        raise ValueError("the layers of the router do not fit together")
    if not bool((tensors["spread"] > 0).all()) or not 1 <= top <= len(layers[-1][1]):
        raise ValueError("the spread or the number of experts of the router cannot be")
    return Router(tensors["mean"], tensors["spread"], layers, top)


def routed(
    view: MergeView, weights: Mapping[str, torch.Tensor], *, steps: int, seed: int, hidden: int = 128,
    learning_rate: float = 1e-2, top: int = 1,
) -> tuple[Router, list[tuple[int, float]], dict[str, Any]]:  # fmt: skip
    """A router over the models of a view, by the states that these weights give its rows; its curve, and facts.

    One row in five is left out first, to see how often the router is right; then all are learned from.
    """
    with torch.no_grad():
        found = [view.states(weights, t, range(view.rows(t))) for t in range(len(view.tasks))]
    states = torch.cat(found).float()
    owners = torch.cat([torch.full((len(s),), view.own(t) or 0) for t, s in enumerate(found)])
    fit = partial(
        fitted, experts=len(view.models), hidden=hidden, steps=steps, learning_rate=learning_rate, top=top, seed=seed
    )
    held = np.random.default_rng(seed).permutation(len(states)) % HELD == 0
    facts: dict[str, Any] = {"rows": len(states), "held_out": int(held.sum()), "accuracy": None}
    if steps and held.any() and len(set(owners[~held].tolist())) == len(view.models):
        probe, _ = fit(states[~held], owners[~held])
        right = probe.logits(states[held]).argmax(1) == owners[held]
        facts["accuracy"] = float(right.float().mean())
    router, curve = fit(states, owners)
    return router, curve, facts


def routed_by_rows(
    view: MergeView, experts: Sequence[Mapping[str, Form]], common: Mapping[str, Form], *, steps: int,
    horizon: int | None, seed: int, shares: Array | None = None,
) -> Routed:  # fmt: skip
    """Experts on shares of the changes, none unless given, with a router where there are rows to learn it from.

    horizon: in place of the steps.
    """
    taken = np.zeros((len(view.tensors), len(view.models))) if shares is None else shares
    if not view.tasks:
        return Routed(Learned(shares=taken), experts, common)
    router, curve, facts = routed(view, view.shared(taken), steps=steps if horizon is None else horizon, seed=seed)
    return Routed(Learned(shares=taken, curve=tuple(curve), facts={"router": facts}), experts, common, router)


def fitted(
    states: torch.Tensor, owners: torch.Tensor, experts: int, *, hidden: int, steps: int, learning_rate: float,
    top: int, seed: int,
) -> tuple[Router, list[tuple[int, float]]]:  # fmt: skip
    """By cross-entropy on all rows at once, where every expert's rows count as much as those of any other.

    hidden: width of the layer between; 0 for none. The curve: (step, loss), which is the log of the number of experts
    where nothing is known.
    """
    spread = states.std(dim=0, correction=0)
    spread = torch.where(spread > 0, spread, torch.ones_like(spread))
    layers = _initial([states.shape[1], *([hidden] if hidden else []), experts], seed)
    flat = [t for layer in layers for t in layer]
    adam = torch.optim.AdamW(flat, lr=learning_rate, weight_decay=WEIGHT_DECAY)
    shares = 1 / torch.bincount(owners, minlength=experts).clamp_min(1).float()
    mean, curve = states.mean(dim=0), []
    inputs = (states - mean) / spread
    for step in range(steps):
        loss = torch.nn.functional.cross_entropy(through(layers, inputs), owners, shares)
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no annotation there
        adam.step()
        curve.append((step, float(loss.detach())))
    return Router(mean, spread, tuple((w.detach(), b.detach()) for w, b in layers), top), curve


def _initial(widths: Sequence[int], seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """He's initial weights; of the last layer zeros, so that all experts begin equal."""
    generator = torch.Generator().manual_seed(seed)
    out = []
    for number, (inputs, outputs) in enumerate(pairwise(widths)):
        last = number == len(widths) - 2
        drawn = torch.randn(outputs, inputs, generator=generator) * (2 / inputs) ** 0.5
        weight = (torch.zeros_like(drawn) if last else drawn).requires_grad_()
        out.append((weight, torch.zeros(outputs, requires_grad=True)))
    return out


def fit_together(layers: Layers) -> bool:
    """Whether each layer, (weight, bias), reads as many numbers as the one before gives."""
    shapes = [(w.shape, b.shape) for w, b in layers]
    if any(len(w) != 2 or b != w[:1] for w, b in shapes):
        return False
    return all(one[0] == other[1] for (one, _), (other, _) in pairwise(shapes))


def through(layers: Sequence[tuple[torch.Tensor, torch.Tensor]], inputs: torch.Tensor) -> torch.Tensor:
    """(…, outputs) of a network: (weight, bias) of each layer, ReLU between them. inputs: (…, width)."""
    for number, (weight, bias) in enumerate(layers):
        inputs = torch.nn.functional.linear(torch.relu(inputs) if number else inputs, weight, bias)
    return inputs
