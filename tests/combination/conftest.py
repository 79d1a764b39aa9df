"""Tiny fine-tunes of one base, trained once for all tests here."""

from __future__ import annotations

import pytest

from tuned_models import Family, family


@pytest.fixture(scope="session")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return family(tmp_path_factory.mktemp("family"))
