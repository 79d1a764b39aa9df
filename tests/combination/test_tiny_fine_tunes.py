"""A tiny encoder that is trained here, tuned on four real tasks, and merged by every method.

The encoder learns to tell five other data sets and their labels apart, so that it knows words and little more. Changes
of so small an encoder are large, and of full rank: Iso-C does not help here, and is held against task arithmetic on
MiniLM, in `test_real_fine_tunes`.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from combination.merged_scores import (  # noqa: F401  # the tests are collected here
    Scores,
    merged_scores,
    scores_apart,
    test_averaging_what_was_tuned_again_is_better_than_averaging_once,
    test_inputs_are_better_than_nothing,
    test_labels_are_better_than_no_labels,
    test_learned_shares_are_better_than_where_they_began,
)
from tiny_models import save_tokenizer
from tuned_models import Family, classifier, trained

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
KNOWN = ("tweet_sentiment", "clinc_domain", "hwu64_scenario", "cr", "tweet_offensive")
TASKS = ("trec6", "sst2", "subj", "tweet_emotion")
SIZES: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128}
WORDS, LONGEST = 6000, 32

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason="the shared data sets are not beside the repository"),
]


def rows_of(name: str, split: str, count: int, start: int = 0) -> list[tuple[str, str]]:
    """Different texts and their labels, in an order that was drawn once."""
    known = pd.read_parquet(DATA / name / f"{split}.parquet")[["text", "label"]].drop_duplicates("text")
    some = known.sample(frac=1, random_state=0).iloc[start : start + count]
    return [(str(t), str(y)) for t, y in some.itertuples(index=False)]


def made(folder: Path) -> Family:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        learned = [(text, f"{name} {label}") for name in KNOWN for text, label in rows_of(name, "train", 3000)]
        train = {t: rows_of(t, "train", 1500) for t in TASKS}
        texts = [text for rows in (learned, *train.values()) for text, _ in rows]
        words = [w for w, _ in Counter(w for t in texts for w in t.lower().split()).most_common(WORDS)]
        sizes = {**SIZES, "vocab_size": len(words) + 5}
        base = tuned(folder / "base", learned, words, None, sizes, epochs=8, learning_rate=2e-3)
        models, tables = {}, {}
        for task in TASKS:
            models[task] = folder / task
            tuned(folder / task, train[task], words, base, sizes, epochs=8, learning_rate=5e-4)
            sides = {"valid": rows_of(task, "train", 300, 1500), "test": rows_of(task, "test", 500)}
            tables[task] = {side: folder / f"{task}-{side}.csv" for side in sides}
            for side, rows in sides.items():
                with tables[task][side].open("w", newline="") as file:
                    csv.writer(file).writerows([("text", "label"), *rows])
        return Family(folder / "base", models, tables)


def tuned(
    where: Path, rows: Sequence[tuple[str, str]], words: Sequence[str], base: Any, sizes: Mapping[str, Any], *,
    epochs: int, learning_rate: float,
) -> Any:  # fmt: skip
    labels = sorted({y for _, y in rows})
    model = classifier(labels, **sizes)
    if base is not None:
        model.bert.load_state_dict(base.bert.state_dict())
    save_tokenizer(where, longest=LONGEST, words=words)
    y = torch.tensor([labels.index(y) for _, y in rows])
    trained(model, where, [text for text, _ in rows], y, epochs=epochs, learning_rate=learning_rate)
    model.save_pretrained(where)
    return model


@pytest.fixture(scope="module")
def fine_tunes(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return made(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def scores(fine_tunes: Family) -> Scores:
    return merged_scores(fine_tunes, learning_rate=1e-3)


@pytest.fixture(scope="module")
def apart(fine_tunes: Family, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    return scores_apart(fine_tunes, tmp_path_factory.mktemp("apart"))


def test_all_methods_are_better_than_no_fine_tune(scores: Scores, apart: dict[str, float]) -> None:
    best = {name: max(each) for name, each in scores.items() if name not in ("base", "wudi")} | apart
    assert len(best) > 40
    assert not {name: score for name, score in best.items() if score <= scores["base"][0]}
    assert max(scores["wudi"]) > scores["task_arithmetic"][-1]  # it adds changes whole, as that at scale 1


def test_interference_is_worth_removing(scores: Scores) -> None:
    assert max(scores["ties"]) > max(scores["task_arithmetic"])


def test_parts_apart_are_better_than_one_body(scores: Scores, apart: dict[str, float]) -> None:
    one = scores["task_arithmetic"][1]
    assert min(apart["surgery"], apart["tint"]) > one  # their own start
    assert min(apart["emr"], apart["tall_mask"], apart["twin_merge"]) > max(scores["task_arithmetic"])
