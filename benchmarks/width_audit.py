"""The width audit: does an estimator take wide noise for a good source?

    python benchmarks/width_audit.py [--seeds 10] [--rows 120]

For each seed, 120 rows of 4 classes: an informative encoder of width 32 (class means half a deviation apart), and pure
noise of widths 32, 256 and 1,024. Prints Markdown: each estimator's mean scores, whether the signal beats all three in
every seed, and whether it claims to be `width_safe`; such a claim is also a law that the tests hold it to.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from headstart import catalogue
from headstart.core import Unfit
from headstart.testing.ranking_estimators import dealt, seen

CLASSES, SIGNAL, NOISE = 4, 32, (32, 256, 1024)
KIND = "ranking.estimators"


def encoders(seed: int, rows: int) -> tuple[list[Any], Any]:
    """Features of the four encoders, the informative one first, and the labels."""
    chance = np.random.default_rng(seed)
    labels = np.arange(rows) % CLASSES
    means = 0.5 * chance.standard_normal((CLASSES, SIGNAL))
    signal = means[labels] + chance.standard_normal((rows, SIGNAL))
    return [signal, *(chance.standard_normal((rows, width)) for width in NOISE)], labels


def heard(method: Any, features: Any, labels: Any) -> float | None:
    """The score; None where the method refuses."""
    try:
        return float(method(seen(method, features, labels, CLASSES, folds=dealt(labels))).value)
    except Unfit:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rows", type=int, default=120)
    asked = parser.parse_args()
    drawn = [encoders(seed, asked.rows) for seed in range(asked.seeds)]
    print(f"{asked.rows} rows, {CLASSES} classes, means over {asked.seeds} seeds; –: refused.\n")
    print("| estimator | signal, 32 | " + " | ".join(f"noise, {w:,}" for w in NOISE) + " | signal wins | claims it |")
    print("| --- |" + " ---: |" * (len(NOISE) + 1) + " --- | --- |")
    for name, entry in catalogue.entries(KIND).items():
        if "features" not in entry.needs.gives or "single_label" not in entry.needs.tasks:
            continue
        method = entry.load()()
        scores = [[heard(method, f, labels) for f in features] for features, labels in drawn]
        means = []
        for column in zip(*scores, strict=True):
            told = [s for s in column if s is not None]
            means.append(f"{np.mean(told):.3g}" if told else "–")
        # a refusal is no mistake: what refuses noise does not prefer it
        wins = sum(s[0] is not None and all(n is None or s[0] > n for n in s[1:]) for s in scores)
        claims = "yes" if "width_safe" in method.claims else "no"
        print(f"| `{name}` | {' | '.join(means)} | {wins} of {asked.seeds} | {claims} |")


if __name__ == "__main__":
    main()
