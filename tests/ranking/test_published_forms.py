"""Forms as they were published prefer wide noise where rows are few; ours, on the same features, do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from benchmark_files import benchmark_files
from headstart.ranking.estimators.gbc import GBC
from headstart.ranking.estimators.lda import LDA
from headstart.ranking.estimators.logme import LogME
from headstart.ranking.estimators.transrate import TransRate
from headstart.testing.ranking_estimators import draw, score
from ranking.test_official_numbers import INPUT, WIDE_NOISE

ROWS, CLASSES = 100, 4


OURS = {"gbc": GBC(), "lda": LDA(), "logme": LogME(), "transrate": TransRate()}


@pytest.fixture(scope="module")
def published() -> Any:
    with benchmark_files() as by_name:
        yield by_name("published_forms")


def test_logme_there_is_what_the_authors_code_gives(published: Any) -> None:
    assert published.logme(WIDE_NOISE, INPUT[1]) == pytest.approx(6.563340152, abs=1e-9)  # see `test_official_numbers`


@pytest.mark.parametrize("width", [8, 64, 300])
def test_lda_there_is_scikit_learns(published: Any, width: int) -> None:
    f, y = draw(width, ROWS, width, CLASSES, apart=0.3)
    wanted = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=1e-3).fit(f, y).score(f, y)
    assert published.in_sample(f, y) == pytest.approx(wanted)


def test_each_form_has_one_of_ours_beside_it(published: Any) -> None:
    assert set(published.FORMS) == set(OURS)


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("seed", range(3))
def test_the_published_form_prefers_wide_noise_and_ours_does_not(published: Any, name: str, seed: int) -> None:
    _, form = published.FORMS[name]
    f, y = draw(seed, ROWS, 32, CLASSES, apart=0.5)
    noise = np.random.default_rng((seed, 1)).standard_normal((ROWS, 512))
    assert form(noise, y) > form(f, y)
    assert score(OURS[name], noise, y, CLASSES) < score(OURS[name], f, y, CLASSES)
