"""Ridge regression by eigenvectors and by a tridiagonal form, against the normal equations and each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.numerics.moments import targets_of
from headstart.numerics.spectrum import Spectrum, Tridiagonal
from headstart.ranking.estimators.logme import LogME
from headstart.testing.ranking_estimators import SeenView, draw, seen

Array = np.ndarray[Any, Any]
SHAPES = [(60, 8), (20, 45), (20, 20), (9, 1), (2, 5)]


def view_of(f: Array, y: Array) -> SeenView:
    return seen(LogME(), f, y, int(y.max()) + 1)


def solved(f: Array, t: Array, penalty: float) -> tuple[float, float]:
    """Squared length of the weights, and squared error, of centred rows."""
    f, t = f - f.mean(axis=0), t - t.mean()
    weights = np.linalg.solve(f.T @ f + penalty * np.eye(f.shape[1]), f.T @ t)
    return float(weights @ weights), float(np.square(t - f @ weights).sum())


@pytest.mark.parametrize("form", [Spectrum, Tridiagonal])
@pytest.mark.parametrize(("rows", "width"), SHAPES)
def test_ridge_is_that_of_the_normal_equations(form: type[Spectrum] | type[Tridiagonal], rows: int, width: int) -> None:
    f, y = draw(3, rows, width, 2, apart=0.3)
    head, targets = form.of_view(view_of(f, y)), targets_of(y, 2)
    penalties, columns = np.array([0.5, 40.0]), np.array([1, 0])
    sizes, errors = head.ridge(penalties, columns)
    for at, (penalty, column) in enumerate(zip(penalties, columns, strict=True)):
        assert (sizes[at], errors[at]) == pytest.approx(solved(f, targets[:, column], penalty), rel=1e-9)
    centred = f - f.mean(axis=0)
    values = np.linalg.eigvalsh(centred.T @ centred)
    want = rows - 1 - (values / (values + penalties[:, None])).sum(axis=1)
    np.testing.assert_allclose(head.freedom(penalties), want, rtol=1e-10)


@given(
    seed=st.integers(0, 2**31),
    shape=st.sampled_from([(60, 8), (20, 45), (40, 40)]),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    values=st.booleans(),
)
def test_both_forms_tell_the_same(seed: int, shape: tuple[int, int], scale: float, values: bool) -> None:
    f, y = draw(seed, *shape, apart=0.5)
    f = np.hstack([scale * f, scale * f[:, :2], np.zeros((shape[0], 3))])
    view, columns = view_of(f, y), np.arange(3)
    long, short = (form.of_view(view).standardised(values=values) for form in (Spectrum, Tridiagonal))
    np.testing.assert_allclose(short.values, long.values, rtol=1e-7, atol=1e-9 * long.values[-1])
    for penalty in (1e-3, 1.0, 1e4):
        of_long, of_short = (head.ridge(np.full(3, penalty), columns) for head in (long, short))
        np.testing.assert_allclose(of_short, of_long, rtol=1e-8)


@pytest.mark.parametrize(("rows", "width"), [(60, 8), (20, 45)])
def test_the_tridiagonal_form_says_where_it_cannot_tell(rows: int, width: int) -> None:
    """Targets that the features fit exactly: what is left of their squares, or the penalty, is rounding."""
    f, y = draw(0, rows, width)
    f[:, :3] = np.eye(3)[y]
    head = Tridiagonal.of_view(view_of(f, y))
    told = np.array(head.ridge(np.full(3, 1e-13), np.arange(3)))
    assert np.isnan(told).all()
    assert np.isfinite(LogME()(view_of(f, y)).value)  # and falls back on the eigenvectors
