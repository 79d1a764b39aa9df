"""Rényi divergence of the target's words from a source's.

Rényi, "On Measures of Entropy and Information", Berkeley Symposium 1961; with alpha 0.99, for choosing what to train
on: Ruder and Plank, "Learning to select data for transfer learning with Bayesian Optimization", EMNLP 2017.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.core import Needs, Sample, Unfit
from headstart.numerics.two_samples import require_one
from headstart.numerics.words import word_shares


@dataclass(frozen=True, kw_only=True, slots=True)
class Renyi:
    """How surprised one who knows the source's words is by the target's: words that the source lacks weigh most.

    Shapes: words of both sets, at most `words` of them; time linear in the texts.
    Returns: nats, 0 for the same shares, at most log(2 / smoothing - 1); log sum p^alpha q^(1 - alpha) / (alpha - 1)
    with p of the target and q of the source.
    Errors: `Unfit` for an alpha of 1 or not above 0, or a smoothing that is not within (0, 1).

    Not symmetric: a source that has all of the target's words and more is nearer than one that has a part of them.
    Published code leaves out words that one side lacks, which are those that tell most. Here each side is mixed with
    the mean of both, by the fraction `smoothing`, so that the amount does not depend on how many rows there are.
    """

    needs = Needs(modalities=("text",), labels=False)
    claims = ("row_order", "grows_with_shift")
    cites = "arXiv:1707.05246"

    alpha: float = 0.99
    smoothing: float = 0.1
    # the commonest words of both sets together
    words: int = 10_000

    def __post_init__(self) -> None:
        require_one(self.words, "words", "Renyi(words=…)", 10_000)
        if not (self.alpha > 0 and self.alpha != 1 and 0 < self.smoothing < 1):
            raise Unfit(
                f"alpha is {self.alpha} and smoothing {self.smoothing}",
                where="Renyi(alpha=…, smoothing=…)",
                fix="use an alpha above 0 other than 1, such as 0.99, and a smoothing between 0 and 1, such as 0.1",
            )

    def __call__(self, source: Sample, target: Sample) -> float:
        shares = word_shares(source.texts, target.texts, self.words)
        mean = (shares[0] + shares[1]) / 2
        q, p = ((1 - self.smoothing) * s + self.smoothing * mean for s in shares)
        if not len(mean):
            return 0.0
        mixed = np.exp(self.alpha * np.log(p) + (1 - self.alpha) * np.log(q)).sum()
        return max(float(np.log(mixed)) / (self.alpha - 1), 0.0)
