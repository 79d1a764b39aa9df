"""Decision vectors against the kernel that they sketch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headstart.core import Unfit
from headstart.numerics.decisions import decision_vector

Array = np.ndarray[Any, Any]
PROBES = 200


def model(seed: int, classes: int, noise: float = 0.0, copy: int = 0) -> Array:
    """Shares of classes for the probes; a copy differs by noise in its logits."""
    logits = 2 * np.random.default_rng(seed).standard_normal((PROBES, classes))
    logits += noise * np.random.default_rng((seed, copy)).standard_normal(logits.shape)
    shares = np.exp(logits)
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("seed", range(5))
def test_the_names_and_the_order_of_classes_change_nothing(seed: int) -> None:
    shares, chance = model(seed, 7), np.random.default_rng(seed)
    vector = decision_vector(shares)
    np.testing.assert_allclose(decision_vector(shares[:, chance.permutation(7)]), vector, atol=1e-12)
    hard = shares.argmax(axis=1)
    names = np.array(["x", "refund", "a", "b", "c", "d", "e"])[chance.permutation(7)]
    np.testing.assert_allclose(decision_vector(names[hard]), decision_vector(hard), atol=1e-12)
    np.testing.assert_allclose(decision_vector(np.eye(7)[hard]), decision_vector(hard), atol=1e-12)
    assert np.linalg.norm(vector) == pytest.approx(1)


def test_two_noisy_copies_of_one_model_are_nearest_each_other() -> None:
    vectors = np.vstack([decision_vector(model(m, 3 + m % 5, 0.6, copy)) for m in range(20) for copy in (1, 2)])
    alike = vectors @ vectors.T - 2 * np.eye(40)
    assert alike.argmax(axis=1).tolist() == [i ^ 1 for i in range(40)]


def test_products_of_vectors_are_those_of_centred_kernels() -> None:
    def kernel(shares: Array) -> Array:
        centred = shares - shares.mean(axis=0)
        return (centred @ centred.T).ravel()

    errors = []
    for seed in range(6):
        one, other = model(seed, 5, 1.0, 1), model(seed, 5, 1.0, 2)
        a, b = kernel(one), kernel(other)
        exact = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        sketched = [decision_vector(one, 512, s) @ decision_vector(other, 512, s) for s in range(8)]
        errors.append(np.mean(sketched) - exact)
    assert np.abs(errors).max() < 0.1  # 8 sketches of 512 signs: 1 / √4096 each way, a few times that at worst


def test_a_model_that_says_the_same_of_all_probes_is_nowhere() -> None:
    for constant in (np.full((30, 4), 0.25), np.zeros(30, dtype=int)):
        assert not decision_vector(constant).any()


def test_answers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(Unfit, match="not finite"):
        decision_vector(np.full((30, 2), np.nan))
