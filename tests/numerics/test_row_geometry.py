"""Geometry of rows and classes, against forms written out and what planted classes must give."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.numerics.row_geometry import CLASSES, SPREAD, lie_of_classes, spread


def clouds(apart: float, rows: int = 600, classes: int = 4, width: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Clouds of variance 1 in each of `width` directions, about corners of a simplex `apart` from each other."""
    rng = np.random.default_rng(0)
    labels = np.arange(rows) % classes
    corners = np.eye(classes, width) * apart / np.sqrt(2)
    return rng.normal(size=(rows, width)) + corners[labels], labels


def test_the_spectrum_is_that_of_the_covariance_with_more_or_fewer_rows_than_dimensions() -> None:
    for shape in ((60, 8), (8, 60)):
        rows = np.random.default_rng(1).normal(1, 1, size=shape) * np.linspace(1, 3, shape[1])
        powers = np.sort(np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False) ** 2)[::-1]
        shares = powers[powers > 1e-9] / powers.sum()
        found = spread(rows)
        assert found[0] == pytest.approx(rows.var(axis=0).sum() / np.square(rows).sum(axis=1).mean())
        assert found[1] == pytest.approx(-(shares * np.log(shares)).sum())
        assert found[2] == pytest.approx(-np.log((shares**2).sum()))
        np.testing.assert_allclose(found[3:], [shares[:n].sum() for n in (1, 2, 5, 20)])


def test_distances_between_classes_are_those_that_were_planted_and_0_by_chance() -> None:
    found = lie_of_classes(*clouds(apart=6.0), "single_label")
    np.testing.assert_allclose(found[1:6], 36 / 10, rtol=0.15)  # in units of the variance of ten directions
    share = 36 / 2 * (3 / 4) / (36 / 2 * (3 / 4) + 10)
    assert found[0] == pytest.approx(share, rel=0.05)
    assert found[6] == pytest.approx(1, abs=0.05)  # three directions of three
    by_chance = lie_of_classes(*clouds(apart=0.0), "single_label")
    assert by_chance[0] == pytest.approx(0, abs=0.02)  # 600 rows
    np.testing.assert_allclose(by_chance[1:6], 0, atol=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_rotation_shift_scale_row_order_and_renaming_do_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, labels = clouds(apart=2.0, rows=90)
    turn, _ = np.linalg.qr(rng.normal(size=(10, 10)))
    order = rng.permutation(len(rows))
    moved = (3 * rows @ turn + 5)[order]
    renamed = np.array([70, 7, 30, 1])[labels][order]
    found = lie_of_classes(rows, labels, "single_label")
    np.testing.assert_allclose(lie_of_classes(moved, renamed, "single_label"), found, atol=1e-9)
    np.testing.assert_allclose(spread((3 * rows @ turn)[order]), spread(rows), atol=1e-9)


def test_one_of_several_labels_is_one_class_and_numbers_are_cut_at_their_fifths() -> None:
    rows, labels = clouds(apart=3.0, rows=80)
    several = lie_of_classes(rows, np.eye(4, dtype=np.int8)[labels], "multi_label")
    np.testing.assert_allclose(several, lie_of_classes(rows, labels, "single_label"))
    value = np.exp(rows[:, 0])
    fifths = np.argsort(np.argsort(value)) * 5 // len(value)
    found = lie_of_classes(rows, value, "regression")
    np.testing.assert_allclose(found, lie_of_classes(rows, fifths, "single_label"))
    np.testing.assert_allclose(found, lie_of_classes(rows, -7 * value + 2, "regression"))  # unit, zero and sign
    assert found[0] > lie_of_classes(rows, np.random.default_rng(0).normal(size=80), "regression")[0]


def test_what_has_no_geometry_is_zeros_and_the_rest_is_finite() -> None:
    rows, none = np.ones((6, 3)), np.zeros(0, dtype=np.int64)
    assert not spread(rows).any()
    assert not spread(rows[:1]).any()
    assert not lie_of_classes(rows, np.zeros(6, dtype=np.int64), "single_label").any()
    assert not lie_of_classes(rows, np.arange(6), "single_label").any()
    assert not lie_of_classes(rows[:0], none, "single_label").any()
    assert not lie_of_classes(rows, np.full(6, np.nan), "regression").any()
    same = lie_of_classes(np.eye(3)[[0, 0, 1, 1, 2, 2]], np.arange(6) // 2, "single_label")
    for found in (same, lie_of_classes(rows, np.arange(6) % 2, "single_label")):
        assert found.shape == (CLASSES,)
        assert np.isfinite(found).all()
    assert spread(np.eye(3)).shape == (SPREAD,)
