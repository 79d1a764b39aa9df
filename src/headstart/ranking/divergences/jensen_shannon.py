"""Jensen-Shannon divergence of the words of two sets of texts.

Lin, "Divergence Measures Based on the Shannon Entropy", IEEE Transactions on Information Theory 1991; for choosing what
to train on: Ruder and Plank, "Learning to select data for transfer learning with Bayesian Optimization", EMNLP 2017.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.core import Needs, Sample
from headstart.numerics.two_samples import require_one
from headstart.numerics.words import word_shares


@dataclass(frozen=True, kw_only=True, slots=True)
class JensenShannon:
    """How different the words are: each set's shares against the mean of both.

    Shapes: words of both sets, at most `words` of them; time linear in the texts.
    Returns: bits, from 0 for the same shares to 1 for no word in common.
    Errors: none of its own.

    No smoothing is needed, as every word of either set is in the mean. The smaller set lacks rare words of the larger
    by chance alone: compare sets of like numbers of words. In Han, kana, Thai and Lao each letter is a word.
    """

    needs = Needs(modalities=("text",), labels=False)
    claims = ("symmetric", "row_order", "grows_with_shift")
    cites = "doi:10.1109/18.61115"

    # the commonest words of both sets together
    words: int = 10_000

    def __post_init__(self) -> None:
        require_one(self.words, "words", "JensenShannon(words=…)", 10_000)

    def __call__(self, source: Sample, target: Sample) -> float:
        p, q = word_shares(source.texts, target.texts, self.words)
        mean = (p + q) / 2
        bits = sum(float((s[s > 0] * np.log2(s[s > 0] / mean[s > 0])).sum()) for s in (p, q)) / 2
        return min(max(bits, 0.0), 1.0)
