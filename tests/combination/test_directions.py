"""Merged models of several tasks, by all methods: better than no fine-tune at all, and in the published order.

Orders are of the papers' own comparisons, each on tiny fine-tunes that were tuned as gently as fine-tunes are:
TIES, TSV-M and PCB over task arithmetic at its best scale, AdaMerging over task arithmetic at its start, RegMean
over the mean, and labels over no labels.
"""

from __future__ import annotations

import pytest

from combination.merged_scores import (  # noqa: F401  # the tests are collected here
    Scores,
    merged_scores,
    test_inputs_are_better_than_nothing,
    test_labels_are_better_than_no_labels,
    test_learned_shares_are_better_than_where_they_began,
)
from tuned_models import family


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Scores:
    return merged_scores(family(tmp_path_factory.mktemp("gentle"), width=48, epochs=10, learning_rate=3e-4))


def test_all_methods_are_better_than_no_fine_tune(scores: Scores) -> None:
    weak = {name: s for name, s in scores.items() if max(s) <= scores["base"][0] and name != "base"}
    assert not weak
    assert len(scores) > 25


@pytest.mark.parametrize("method", ["ties", "tsv_m", "pcb"])
def test_interference_is_worth_removing(scores: Scores, method: str) -> None:
    assert max(scores[method]) > max(scores["task_arithmetic"])
