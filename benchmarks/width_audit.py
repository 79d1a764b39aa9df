"""The width audit: does an estimator take wide noise for a good source?

    python benchmarks/width_audit.py [--seeds 5] [--rows 100 300 1000]

For each seed and number of rows, 4 classes: an informative encoder of width 32 (class means half a deviation apart),
and pure noise of widths 64, 512 and 4,096, and of width 384 with variances that fall off as those of encoders do.
Prints Markdown: for each estimator and number of rows, in how many seeds the signal is ahead of each noise, and whether
the estimator claims to be `width_safe`; such a claim is also a law that the tests hold it to. Beside ours stand some as
they were published.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from published_forms import FORMS

from headstart import catalogue
from headstart.testing.ranking_estimators import dealt, falling, heard

CLASSES, SIGNAL, NOISE, FALLING = 4, 32, (64, 512, 4096), 384
KIND = "ranking.estimators"


def encoders(seed: int, rows: int) -> tuple[list[Any], Any]:
    """Features of the five encoders, the informative one first, and the labels."""
    chance = np.random.default_rng(seed)
    labels = np.arange(rows) % CLASSES
    means = 0.5 * chance.standard_normal((CLASSES, SIGNAL))
    signal = means[labels] + chance.standard_normal((rows, SIGNAL))
    white = [chance.standard_normal((rows, width)) for width in NOISE]
    return [signal, *white, falling(chance, rows, FALLING)], labels


def wins(told: Callable[[Any, Any], float | None], drawn: list[tuple[list[Any], Any]]) -> str:
    """Seeds in which the signal is ahead of each noise; – where the noise, or the signal itself, is refused."""
    scores = [[told(f, labels) for f in some] for some, labels in drawn]
    cells = []
    for at in range(1, len(scores[0])):
        ahead = [one[0] > one[at] for one in scores if one[0] is not None and one[at] is not None]
        cells.append(str(sum(ahead)) if ahead else "–")
    return " · ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", type=int, nargs="+", default=[100, 300, 1000])
    asked = parser.parse_args()
    print("| estimator | " + " | ".join(f"{rows:,} rows" for rows in asked.rows) + " | claims it |")
    print("| --- |" + " --- |" * (len(asked.rows) + 1))
    drawn = [[encoders(seed, rows) for seed in range(asked.seeds)] for rows in asked.rows]
    for name, entry in catalogue.entries(KIND).items():
        if "features" not in entry.needs.gives or "single_label" not in entry.needs.tasks:
            continue
        method = entry.load()()

        def ours(f: Any, y: Any, method: Any = method) -> float | None:
            return heard(method, f, y, classes=CLASSES, folds=dealt(y))

        rows = [(f"`{name}`", ours, "yes" if "width_safe" in entry.claims else "no")]
        if name in FORMS:
            how, form = FORMS[name]
            rows.append((f"{name}, {how}", form, ""))
        for title, told, claim in rows:
            cells = " | ".join(wins(told, some) for some in drawn)
            print(f"| {title} | {cells} | {claim} |", flush=True)


if __name__ == "__main__":
    main()
