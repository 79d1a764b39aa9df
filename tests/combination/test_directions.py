"""Merged models of several tasks, by all methods: better than no fine-tune at all, and in the published order.

Orders are of the papers' own comparisons, each on tiny fine-tunes that were tuned as gently as fine-tunes are:
TIES, TSV-M and PCB over task arithmetic at its best scale, AdaMerging over task arithmetic at its start, RegMean
over the mean, and labels over no labels.
"""

from __future__ import annotations

import pytest

from combination.merged_scores import Scores, merged_scores
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


def test_learned_shares_are_better_than_where_they_began(scores: Scores) -> None:
    assert max(scores["adamerging"]) > scores["task_arithmetic"][1]  # at scale 0.3


def test_inputs_are_better_than_nothing(scores: Scores) -> None:
    assert scores["regmean"][0] > scores["mean"][0]


def test_labels_are_better_than_no_labels(scores: Scores) -> None:
    assert scores["atlas"][0] > max(scores["task_arithmetic"])
