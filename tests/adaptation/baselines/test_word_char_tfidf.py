"""TF-IDF with a linear model against scikit-learn's pipeline, and on a public set where it lies at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline, make_union

from headstart.adaptation.baselines.word_char_tfidf import WordCharTfidf
from headstart.core import Steps, Unfit
from headstart.testing.adaptation_baselines import draw, fit_view

TREC = Path(__file__).parents[4] / "shared/data/trec6"


def test_equals_the_pipeline_of_scikit_learn() -> None:
    view, _ = draw("text", "single_label", 0, rows=45)
    texts = view.train.texts
    union = make_union(
        TfidfVectorizer(token_pattern=r"(?u)\b\w+\b", ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
    )
    pipeline = make_pipeline(union, LogisticRegression(C=1.0, tol=1e-8, max_iter=10_000)).fit(texts, view.train.labels)
    found = WordCharTfidf(strengths=(1.0,))(view, None, Steps()).predictions
    np.testing.assert_allclose(found, pipeline.predict_proba(view.valid.texts), atol=1e-3)  # solvers stop early


@pytest.mark.skipif(not TREC.exists(), reason="the shared data sets are not beside the repository")
def test_sane_on_questions() -> None:
    import pyarrow.parquet as pq

    rows = pq.read_table(TREC / "train.parquet")
    kept = np.random.default_rng(0).permutation(rows.num_rows)[:600]
    labels, texts = rows["label"].to_numpy()[kept], [rows["text"][int(i)].as_py() for i in kept]
    made = WordCharTfidf()(fit_view(labels, texts=texts, valid=range(250, 600)), None, Steps())
    assert f1_score(labels[250:], made.predictions.argmax(axis=1), average="macro") > 0.5


def test_empty_texts_fall_back_to_the_prior() -> None:
    view = fit_view([0, 0, 1, 0], texts=["", " ", "", "new"], valid=[3])
    np.testing.assert_allclose(WordCharTfidf()(view, None, Steps()).predictions, [[2 / 3, 1 / 3]], atol=1e-6)


def test_a_text_of_a_million_characters_is_read_in_part() -> None:
    view = fit_view([0, 1, 0, 1, 0], texts=["a b", "c d", "a b e", "c d f", "a b " * 250_000], valid=[4])
    assert WordCharTfidf()(view, None, Steps()).predictions.argmax() == 0


def test_settings_out_of_range() -> None:
    with pytest.raises(Unfit, match="above 0"):
        WordCharTfidf(strengths=())
