"""Numbers that the authors' own code gave on one small input, and where ours differ on purpose.

The input is drawn by numpy: `INPUT` below. Each number was printed by the function named beside it, at that commit:

- thuml/LogME 56551ca: `LogME(…).fit`, `NCE`, `LEEP`
- dbolya/parc ddfca43: `PARC().get_parc_correlation`, `RSA().get_rsa_correlation`, `DDS().get_similarity_from_rdms` and
  `.cka`, `HScore().get_hscore_fast`
- google-research/google-research 4c42994: `stable_transfer/transferability/gbc.py`, `get_gbc_score`, with numpy's
  functions under the names of TensorFlow's
- lixiaotong97/PED e5af6e7: `PED_Score` with the features themselves as `general_X`, `NLEEP` after `np.random.seed(0)`
- google-research/pactran_metrics a5e4997: `calculate_pac_gauss`
- TencentARC/SFDA 3b7edf7: `SFDA_Score`
- thuml/Transfer-Learning-Library 0.4: `tllib.ranking.transrate`
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax
from scipy.stats import spearmanr

from headstart.numerics.softmax import fit_softmax
from headstart.ranking.estimators.cka import CKA
from headstart.ranking.estimators.dds import DDS
from headstart.ranking.estimators.gbc import GBC
from headstart.ranking.estimators.h_score import HScore
from headstart.ranking.estimators.leep import LEEP
from headstart.ranking.estimators.logme import LogME
from headstart.ranking.estimators.nce import NCE
from headstart.ranking.estimators.nleep import NLEEP
from headstart.ranking.estimators.parc import PARC
from headstart.ranking.estimators.ped import PED
from headstart.ranking.estimators.rsa import RSA
from headstart.ranking.estimators.sfda import SFDA
from headstart.ranking.estimators.transrate import TransRate
from headstart.testing.ranking_estimators import draw, score

Array = np.ndarray[Any, Any]
INPUT = draw(0, 60, 8, 3, apart=0.8)
OTHER = np.random.default_rng(1)
REFERENCE = OTHER.standard_normal((60, 5)) + INPUT[0][:, :5]
SOURCE = OTHER.dirichlet(np.full(5, 0.5), 60)
SOFT = np.random.default_rng(2).random((60, 4))
NOISE, WIDE_NOISE = (np.random.default_rng(0).standard_normal((60, width)) for width in (8, 200))


def test_logme_with_more_rows_than_dimensions() -> None:
    """It lacks an intercept: it was given t @ features and t @ classes, t the 59 directions without a constant."""
    f, y = INPUT
    assert score(LogME(), f, y) == pytest.approx(-0.3517621782, abs=1e-6)  # it stops at 1e-3 and adds 1e-5


def test_logme_with_fewer_rows_differs_since_zero_eigenvalues_count() -> None:
    f, y = INPUT
    assert score(LogME(), WIDE_NOISE, y) < score(LogME(), f, y) < 6.563340152, "which it gave to the noise"


def test_parc() -> None:
    """On soft labels, which do not tie."""
    assert score(PARC(), INPUT[0], SOFT, 4, task="multi_label") == pytest.approx(0.5541882877, abs=1e-9)


def test_parc_of_classes_differs_since_equal_distances_tie() -> None:
    """It gave 22.92239 here, as it ranks pairs of one class by what rounding left of a distance of 0."""
    f, y = INPUT
    pairs = np.triu_indices(60, 1)
    features = 1 - np.corrcoef((f - f.mean(0)) / f.std(0))[pairs]
    labels = np.where(y[:, None] == y, 0.0, 1.5)[pairs]
    assert score(PARC(), f, y) == pytest.approx(100 * spearmanr(features, labels).statistic, abs=1e-6)
    assert score(PARC(), f, y) == pytest.approx(21.69119318, abs=1e-6)  # its own function, given rounded distances


def test_rsa_dds_and_debiased_cka() -> None:
    f, y = INPUT
    assert 100 * score(RSA(), f, y, told=REFERENCE) == pytest.approx(41.8236790822, abs=1e-8)
    assert 100 * score(DDS(), f, y, told=REFERENCE) == pytest.approx(52.1556615594, abs=1e-6)  # ours rounds distances
    assert score(CKA(), f, y, told=REFERENCE) == pytest.approx(0.431574185781, abs=1e-10)


def test_transrate_differs_since_it_has_a_unit_and_a_null() -> None:
    """Its distortion is a number and not a share of the variance, and what chance gives is kept."""
    f, y = INPUT
    absolute = TransRate(distortion=1e-4 / f.var(axis=0).mean(), permutations=0)
    assert score(absolute, f, y) == pytest.approx(1.0336886529, abs=1e-9)
    assert score(TransRate(), WIDE_NOISE, y) < score(TransRate(), f, y) < 187.97872336, "which it gave to the noise"


def test_h_score_leep_and_nce() -> None:
    f, y = INPUT
    assert score(HScore(), f, y) == pytest.approx(1.2969472331, abs=1e-8)  # it adds 1e-8 to counts
    logits = np.log(SOURCE)
    assert score(LEEP(), logits, y) == pytest.approx(-1.0633325319, abs=1e-9)
    assert score(NCE(), logits, y) == pytest.approx(-1.0361423064, abs=1e-9)


def test_gbc() -> None:
    """The spherical one leaves the width out of its logarithms and gave -1.67683, for -1.67096."""
    f, y = INPUT
    assert -np.exp(-score(GBC(covariance="diagonal", chance="kept"), f, y)) == pytest.approx(-1.5339793843, abs=1e-9)
    means = np.stack([f[y == c].mean(0) for c in range(3)])
    spread = np.array([f[y == c].var(0).mean() for c in range(3)])
    total = {1: 0.0, 8: 0.0}  # by how often the logarithms count
    for i, j in ((a, b) for a in range(3) for b in range(3) if a != b):
        middle = (spread[i] + spread[j]) / 2
        apart = np.square(means[i] - means[j]).sum() / middle / 8
        for times in total:
            total[times] += np.exp(-apart - times / 2 * np.log(middle / np.sqrt(spread[i] * spread[j])))
    assert -total[1] == pytest.approx(-1.6768267253, abs=1e-9)
    assert -np.exp(-score(GBC(chance="kept"), f, y)) == pytest.approx(-total[8], abs=1e-9)


def test_the_pushes_of_ped() -> None:
    """How far each class went over the steps, in deviations of the features."""
    f, y = INPUT
    z = (f - f.mean(0)) / f.std(0)
    moved = PED()._descended(z, y) - z
    lengths = np.linalg.norm(np.stack([moved[y == c][0] for c in range(3)]), axis=1)
    np.testing.assert_allclose(lengths, [0.018477066395, 0.00398539531, 0.019999999843], rtol=1e-8)


@pytest.mark.parametrize(("factor", "official"), [(10.0, 0.1977153669), (1.0, 0.2825715534)])
def test_the_optimum_that_pactran_begins_with(factor: float, official: float) -> None:
    f, y = INPUT
    x = f - f.mean(0)
    weight, bias = fit_softmax(x, y, 3, factor)
    loss = -log_softmax(x @ weight.T + bias, axis=1)[np.arange(60), y].mean()
    assert loss + np.square(weight).sum() / (2 * factor * 60) == pytest.approx(official, abs=5e-6)  # both stop early


def test_nleep_and_sfda_differ_since_rows_are_held_out() -> None:
    """They gave a mean probability of 0.51674 and 1.0 on noise; three equal classes have a third."""
    y = INPUT[1]
    assert np.exp(score(NLEEP(), NOISE, y)) == pytest.approx(1 / 3, abs=0.05)
    assert score(SFDA(), WIDE_NOISE, y) == pytest.approx(1 / 3, abs=0.05)
