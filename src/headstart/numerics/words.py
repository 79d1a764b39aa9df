"""Which words a set of texts is made of, beside another set."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from .hashing import content_text

Array = np.ndarray[Any, Any]

# a letter each in scripts that put no blanks between words: Thai and Lao, kana, Han
ALONE = "\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff"
TOKEN = re.compile(rf"[{ALONE}]|[^\W{ALONE}]+")


def tokens(text: str) -> list[str]:
    """Words without regard to case; of scripts without blanks, letters.

    >>> tokens("The CAT, 猫です")
    ['the', 'cat', '猫', 'で', 'す']
    """
    return TOKEN.findall(content_text(text))


def word_shares(source: Sequence[str], target: Sequence[str], most: int) -> tuple[Array, Array]:
    """Share of each word in each of two sets of texts, over the `most` words that are commonest in both together.

    Each set has the same say in what is common, whatever its size. A set without words is uniform.

    >>> word_shares(["a b", "a"], ["b"], most=9)
    (array([0.66666667, 0.33333333]), array([0., 1.]))
    """
    counts = [Counter(word for text in texts for word in tokens(text)) for texts in (source, target)]
    totals = [max(sum(c.values()), 1) for c in counts]
    weight = {word: sum(c[word] / n for c, n in zip(counts, totals, strict=True)) for word in counts[0] | counts[1]}
    kept = sorted(sorted(weight, key=lambda w: (-weight[w], w))[:most])
    shares = []
    for counted in counts:
        found = np.array([counted[word] for word in kept], dtype=np.float64)
        shares.append(found / found.sum() if found.sum() else np.full(len(kept), 1 / max(len(kept), 1)))
    return shares[0], shares[1]
