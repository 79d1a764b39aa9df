"""Linear heads: against scikit-learn at the same strength, closed forms, and what must not change them."""

from __future__ import annotations

from time import process_time
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from headstart.numerics.inner import inner_folds
from headstart.numerics.linear import chosen, folded, logistic_path, ridge_path, standard, unfolded


def rows(n: int = 60, width: int = 10, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    g = np.random.default_rng(seed)
    y = np.arange(n) % classes
    return g.normal(size=(classes, width))[y] + g.normal(size=(n, width)) * 2 + 3, y


@pytest.mark.parametrize("width", [10, 200])
def test_logistic_equals_scikit_learn_on_standardised_features(width: int) -> None:
    x, y = rows(width=width)
    strengths = [1e-3, 1.0, 100.0]
    z = (x - x.mean(0)) / x.std(0)
    for strength, head in zip(strengths, logistic_path(x, y, 4, strengths), strict=True):
        theirs = LogisticRegression(C=strength, tol=1e-8, max_iter=5000).fit(z, y).predict_proba(z)
        np.testing.assert_allclose(head(x), theirs, atol=2e-5)  # the head is stored in float32


@pytest.mark.parametrize("width", [10, 200])
def test_ridge_equals_scikit_learn_on_standardised_features(width: int) -> None:
    x, y = rows(width=width)
    values = 100 + x[:, 0] * 5 + y
    z = (x - x.mean(0)) / x.std(0)
    theirs = Ridge(alpha=10.0).fit(z, values).predict(z)
    np.testing.assert_allclose(ridge_path(x, values, [0.1])[0](x)[:, 0], theirs, rtol=1e-5)  # float32 head


def test_sigmoid_head_equals_one_logistic_model_for_each_label() -> None:
    x, y = rows()
    labels = np.stack([y % 2 == 0, y == 1, np.zeros(60, dtype=bool)], axis=1).astype(np.int8)
    head = logistic_path(x, labels, 3, [1.0], "sigmoid")[0]
    z = (x - x.mean(0)) / x.std(0)
    for c in (0, 1):
        theirs = LogisticRegression(C=1.0, tol=1e-8, max_iter=5000).fit(z, labels[:, c]).predict_proba(z)[:, 1]
        np.testing.assert_allclose(head(x)[:, c], theirs, atol=2e-5)  # float32 head
    assert head(x)[:, 2].max() < 0.01  # no row has this label
    assert not head.weight[2].any()


def test_weak_strength_gives_the_class_shares() -> None:
    x, y = rows(n=63)
    shares = np.bincount(y) / 63
    np.testing.assert_allclose(logistic_path(x, y, 4, [1e-10])[0](x), np.tile(shares, (63, 1)), atol=1e-6)


def test_folded_head_is_scaler_then_head() -> None:
    x, _ = rows()
    g = np.random.default_rng(1)
    weight, bias = g.normal(size=(4, 10)), g.normal(size=4)
    centre, scale = standard(x)
    head = folded(weight, bias, centre, scale, "identity")
    np.testing.assert_allclose(head(x), ((x - centre) / scale) @ weight.T + bias, atol=2e-6)  # float32 weights
    back = unfolded(head, centre, scale)
    np.testing.assert_allclose(back[0], weight, rtol=1e-6)
    np.testing.assert_allclose(back[1], bias, atol=2e-6)


def test_constant_features_get_no_weight() -> None:
    x, y = rows()
    x[:, 3] = 1e4
    head = chosen(x, y, 4, [str(i) for i in range(60)]).head
    assert not head.weight[:, 3].any()
    assert np.isfinite(head(x + 1)).all()


@pytest.mark.parametrize(("link", "rows"), [("softmax", 60), ("softmax", 12), ("identity", 60)])
def test_constant_features_change_no_bit_of_a_choice(link: Any, rows: int) -> None:
    """Also where with them the width exceeds the rows; else they could decide between strengths."""
    chance = np.random.default_rng(2)
    x, ids = chance.standard_normal((rows, 16)), [str(i) for i in range(rows)]
    y = x[:, 0] if link == "identity" else (x[:, 0] + chance.standard_normal(rows) > 0).astype(int)
    wide = np.hstack([x[:, :9], np.full((rows, 90), 5.0), x[:, 9:]])
    narrow, other = (chosen(f, y, 0 if link == "identity" else 2, ids, link) for f in (x, wide))
    assert narrow.losses == other.losses
    assert (np.delete(other.head.weight, range(9, 99), axis=1) == narrow.head.weight).all()


def test_a_class_without_rows_is_finite_and_never_chosen() -> None:
    x, y = rows()
    head = chosen(x[y != 2], y[y != 2], 4, [str(i) for i in range(45)]).head
    assert np.isfinite(head.bias).all()
    assert not head.weight[2].any()
    assert head(x)[:, 2].max() < 1e-9


def test_one_class_alone_and_one_row_alone() -> None:
    x, y = rows()
    assert chosen(x[y == 1], y[y == 1], 4, [str(i) for i in range(15)]).head(x)[:, 1].min() > 0.999
    assert chosen(x[:1], y[:1], 4, ["one"]).head(x)[:, 0].min() > 0.999


def test_rotating_standardised_wide_features_changes_nothing() -> None:
    x, y = rows(n=30, width=50)
    z = (x - x.mean(0)) / x.std(0)
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(50, 50)))[0]
    # the scaler sees other columns after a turn, so the path is compared on its span: the Gram matrix is the same
    a = logistic_path(z, y, 4, [0.5])[0](z)
    u, s, _ = np.linalg.svd(z, full_matrices=False)
    small = LogisticRegression(C=0.5, tol=1e-9, max_iter=5000).fit(u * s, y).predict_proba(u * s)
    turned = LogisticRegression(C=0.5, tol=1e-9, max_iter=5000).fit(z @ turn, y).predict_proba(z @ turn)
    np.testing.assert_allclose(a, small, atol=2e-5)  # float32 head
    np.testing.assert_allclose(a, turned, atol=2e-5)


def test_strength_is_strong_for_clear_classes_and_weak_for_noise() -> None:
    g = np.random.default_rng(3)
    y = np.arange(60) % 3
    ids = [str(i) for i in range(60)]
    noise = g.normal(size=(60, 20))
    clear = noise + 8 * np.eye(20)[y]
    assert chosen(noise, y, 3, ids).strength <= 0.01
    assert chosen(clear, y, 3, ids).strength >= 0.1


def test_a_choice_says_how_far_it_is() -> None:
    x, y = rows()
    seen: list[tuple[int, int]] = []
    probe = chosen(x, y, 4, [str(i) for i in range(60)], report=lambda done, of: seen.append((done, of)))
    tried, way = len(probe.losses), sum(s <= probe.strength for s, _ in probe.losses)
    # three inner folds of each strength tried, of nine; then those on the way to the one that was chosen, less the last
    choosing = [(n, 9 * (3 + 1)) for n in range(1, 3 * tried + 1)]
    assert seen == choosing + [(3 * tried + n, 3 * tried + way) for n in range(1, way)]


def test_probe_does_not_depend_on_the_order_of_rows() -> None:
    x, y = rows()
    ids = np.array([f"row {i}" for i in range(60)])
    order = np.random.default_rng(4).permutation(60)
    a, b = chosen(x, y, 4, list(ids)), chosen(x[order], y[order], 4, list(ids[order]))
    assert a.strength == b.strength
    np.testing.assert_allclose(a.head(x), b.head(x), atol=1e-5)  # an iterative optimum


def test_the_whole_choice_takes_less_than_half_a_second() -> None:
    x, y = rows(n=240, width=384, classes=10)
    began = process_time()
    chosen(x.astype(np.float32), y, 10, [str(i) for i in range(240)])
    assert process_time() - began < 1.0  # 0.15 s alone on one core; the rest is room for a busy machine


def test_inner_folds_are_even_within_classes_and_follow_ids() -> None:
    ids = [f"row {i}" for i in range(31)]
    y = np.arange(31) % 4
    folds = inner_folds(ids, y, 3)
    assert np.ptp(np.bincount(folds)) <= 1
    for c in range(4):
        assert np.ptp(np.bincount(folds[y == c], minlength=3)) <= 1
    order = np.random.default_rng(0).permutation(31)
    assert inner_folds([ids[i] for i in order], y[order], 3).tolist() == folds[order].tolist()


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_what_is_not_a_number_is_no_feature_that_does_not_vary(odd: float) -> None:
    x, y = rows()
    x[3] = odd
    with pytest.raises((ValueError, np.linalg.LinAlgError)), np.errstate(invalid="ignore"):
        chosen(x, y, 4, [str(i) for i in range(60)])
