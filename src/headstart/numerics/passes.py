"""What forward and backward passes of a model over rows show at its weights: the sums that some merges rest on.

Products of inputs are taken in float32, batch by batch, and summed in float64; padding is left out where a mask says
so. A layer that is called several times counts as often, and what goes into it once for all rows of a batch, as
embeddings of distances, for each of them: nothing depends on which rows are read together.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.func import functional_call

from headstart.core import Passes, Seen

Link = Literal["softmax", "sigmoid", "identity"]
Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True, eq=False, slots=True)
class Called:
    """What a model is called with. mask: (rows, tokens), true where a token counts; None where all do."""

    tensors: Mapping[str, torch.Tensor]
    mask: torch.Tensor | None = None


def sites(module: nn.Module) -> dict[str, tuple[nn.Module, bool]]:
    """Linear layers by the name of their weight, and whether it is stored transposed, as GPT-2's are.

    >>> sites(nn.Sequential(nn.Linear(2, 3), nn.ReLU())).keys()
    dict_keys(['0.weight'])
    """
    found = {}
    for path, one in module.named_modules():
        if isinstance(one, nn.Linear) or type(one).__name__ == "Conv1D":
            found[f"{path}.weight" if path else "weight"] = (one, not isinstance(one, nn.Linear))
    return found


def called(module: nn.Module, weights: Weights, one: Called) -> list[str]:
    """Names of the weights of linear layers, in the order in which a pass first calls them.

    >>> pair = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    >>> called(pair, {}, Called({"input": torch.zeros(1, 2)}))
    ['0.weight', '1.weight']
    """
    order: list[str] = []
    hooks = [m.register_forward_hook(lambda *_, n=n: order.append(n)) for n, (m, _) in sites(module).items()]
    try:
        with torch.no_grad():
            functional_call(module, dict(weights), (), dict(one.tensors))
    finally:
        for hook in hooks:
            hook.remove()
    return list(dict.fromkeys(order))


def looked(
    module: nn.Module, weights: Weights, rows: Iterable[Called], asks: Sequence[Seen], *, link: Link = "softmax",
    draws: int = 8, seed: int = 0, only: Collection[str] | None = None,
) -> dict[str, Passes]:  # fmt: skip
    """What is seen at each of the weights, by name. The module's own weights are not touched.

    only: names of weights at whose layers inputs and gradients are looked at; None is all.
    rows: of `squares` and `gradients`, one row each; of `inputs` alone, any number. draws: outputs that are drawn for a
    row from what the model predicts; all outputs, weighted by their probability, where there are no more.
    """
    watch = _Watch(module, weights, asks, only)
    generator = torch.Generator().manual_seed(seed)
    backward = any(a != "inputs" for a in asks)
    with watch, torch.set_grad_enabled(backward):
        for called in rows:
            watch.mask = called.mask
            logits = functional_call(module, watch.weights, (), dict(called.tensors)).logits
            for share, value in drawn(logits, link, draws, generator) if backward else ():
                watch.back(share, value)
            watch.next(len(logits))
    return watch.found()


class _Watch:
    """Hooks at linear layers, and the sums that they fill."""

    def __init__(
        self, module: nn.Module, weights: Weights, asks: Sequence[Seen], only: Collection[str] | None = None
    ) -> None:
        wanted = weights if only is None else weights.keys() & set(only)
        self._asks, self._sites = asks, {n: s for n, s in sites(module).items() if n in wanted}
        backward = any(a != "inputs" for a in asks)
        learnt = {n for n, _ in module.named_parameters()}  # running statistics have no gradients
        self.weights = {n: w.detach().requires_grad_(backward and n in learnt) for n, w in weights.items()}
        self.mask: torch.Tensor | None = None
        self._outputs: list[tuple[str, torch.Tensor]] = []
        self._inputs: dict[str, torch.Tensor] = {}
        self._gradients: dict[str, torch.Tensor] = {}
        self._squares: dict[str, torch.Tensor] = {}
        self._tokens: dict[str, int] = {}
        self._rows = 0
        self._hooks: list[Any] = []

    def __enter__(self) -> None:
        self._hooks = [one.register_forward_hook(self._hook(name)) for name, (one, _) in self._sites.items()]

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def see(module: nn.Module, args: tuple[Any, ...], out: torch.Tensor) -> None:
            del module
            if "inputs" in self._asks:
                x, times = self._counted(args[0].detach()), self._times(args[0])
                product = (x.T @ x).double().mul_(times)
                self._inputs[name] = self._inputs[name].add_(product) if name in self._inputs else product
                self._tokens[name] = self._tokens.get(name, 0) + times * len(x)
            if "gradients" in self._asks:
                self._outputs.append((name, out))

        return see

    def _counted(self, x: torch.Tensor) -> torch.Tensor:
        """(tokens, width) of those that count."""
        if self.mask is not None and x.shape[:-1] == self.mask.shape:
            return x[self.mask.bool()].float()
        if self.mask is not None and x.shape[:-1] == self.mask.T.shape:  # as Longformer has it inside
            return x[self.mask.T.bool()].float()
        return x.reshape(-1, x.shape[-1]).float()

    def _times(self, x: torch.Tensor) -> int:
        """How many rows an input is for; what is one token of each row is no input for all of them."""
        rows = 1 if self.mask is None else len(self.mask)
        return rows if x.dim() > 2 and len(x) == 1 and x.shape[1] != rows else 1

    def back(self, share: float, value: torch.Tensor) -> None:
        """One drawn output's gradients, squared or multiplied with themselves."""
        named = [(n, w) for n, w in self.weights.items() if w.requires_grad] if "squares" in self._asks else []
        ends = [w for _, w in named] + [o for _, o in self._outputs]
        got = torch.autograd.grad(value, ends, retain_graph=True, allow_unused=True)
        for (name, weight), g in zip(named, got, strict=False):
            total = self._squares.setdefault(name, torch.zeros_like(weight, requires_grad=False))
            if g is not None:
                total.addcmul_(g, g, value=share)
        for (name, _), g in zip(self._outputs, got[len(named) :], strict=True):
            if g is not None:
                g = self._counted(g)
                product = share * (g.T @ g).double()
                self._gradients[name] = self._gradients[name].add_(product) if name in self._gradients else product

    def next(self, rows: int) -> None:
        self._outputs.clear()
        self._rows += rows

    def found(self) -> dict[str, Passes]:
        """The sums become means where they lie; asked once."""
        rows = max(1, self._rows)
        return {
            n: Passes(
                squares=self._squares[n].div_(rows) if n in self._squares else None,
                inputs=self._inputs[n].div_(self._tokens[n]) if n in self._inputs else None,
                gradients=self._gradients[n].div_(rows) if n in self._gradients else None,
                transposed=n in self._sites and self._sites[n][1],
            )
            for n in self.weights
        }


def drawn(
    logits: torch.Tensor, link: Link, draws: int, generator: torch.Generator
) -> Iterator[tuple[float, torch.Tensor]]:
    """Shares and values whose squared gradients, times the shares, sum to the expected squared gradient of the
    log-likelihood of one row (1, outputs), over what the model itself predicts.

    Of independent labels (`sigmoid`) and of numbers with noise of variance 1 (`identity`) one output at a time is
    enough, as their residuals do not go together.

    >>> logits = torch.tensor([[0.0, 0.0]])
    >>> [share for share, _ in drawn(logits, "softmax", 8, torch.Generator())]
    [0.5, 0.5]
    """
    row = logits[0]
    if link == "softmax":
        logs = torch.log_softmax(row, 0)
        chances = logs.detach().exp()
        if len(row) <= draws:
            yield from ((float(p), logs[c]) for c, p in enumerate(chances) if float(p) > 0)
            return
        for c in torch.multinomial(chances, draws, replacement=True, generator=generator).tolist():
            yield 1 / draws, logs[c]
        return
    spread = torch.sigmoid(row.detach()) if link == "sigmoid" else None
    outputs: Sequence[int] = range(len(row))
    times = 1.0
    if len(row) > draws:
        outputs = torch.randperm(len(row), generator=generator)[:draws].tolist()
        times = len(row) / draws
    for j in outputs:
        yield times * (1.0 if spread is None else float(spread[j] * (1 - spread[j]))), row[j]
