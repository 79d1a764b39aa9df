"""Every method of every kind keeps the laws of its kind and what it claims. There is no skip list."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart import catalogue
from headstart.core import KINDS
from headstart.testing import has_the_shape_of_its_kind, laws

METHODS = [(k, e.load()()) for k in KINDS for e in catalogue.entries(k).values() if not catalogue.missing(e)]
CASES = [pytest.param(law, m, id=f"{k}.{type(m).__name__}-{law.__name__}") for k, m in METHODS for law in laws(k, m)]


@pytest.mark.parametrize(("law", "method"), CASES)
@settings(max_examples=2, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_law(law: Any, method: Any, seed: int) -> None:
    law(method, seed=seed)


@pytest.mark.parametrize(("kind", "method"), METHODS, ids=[f"{k}.{type(m).__name__}" for k, m in METHODS])
def test_shape(kind: str, method: Any) -> None:
    has_the_shape_of_its_kind(kind, method)


def test_every_kind_has_a_method() -> None:
    assert {k for k, _ in METHODS} == set(KINDS)
