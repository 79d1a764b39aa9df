"""Licences: which are one, which ask for something, and which cannot go together."""

from __future__ import annotations

import pytest

from headstart.evidence.card import licence_notes, licence_of


def of(*licences: str | None) -> list[dict[str, str | None]]:
    return [{"name": f"s{i}", "licence": licence} for i, licence in enumerate(licences)]


@pytest.mark.parametrize(
    ("licences", "one"),
    [(("MIT", "mit"), "mit"), (("mit", "apache-2.0"), "other"), (("mit", None), "unknown"), ((), "unknown")],
)
def test_one_licence(licences: tuple[str | None, ...], one: str) -> None:
    assert licence_of(of(*licences)) == one


def test_permissive_licences_need_no_note() -> None:
    assert licence_notes(of("mit", "Apache-2.0", "bsd-3-clause", "cc-by-4.0")) == ()


@pytest.mark.parametrize(
    ("licences", "says"),
    [
        (("cc-by-nc-4.0", "apache-2.0"), "forbids commercial use"),
        (("gpl-3.0", "cc-by-nc-4.0"), "allows no further limits"),
        (("gpl-2.0", "apache-2.0"), "cannot be passed on together"),
        (("gpl-3.0", "cc-by-sa-4.0"), "each ask for their own terms"),
        (("cc-by-nd-4.0",), "allows no changed versions"),
        (("llama3",), "terms of its own"),
        ((None,), "unknown"),
        (("agpl-3.0",), "under the same licence"),
    ],
)
def test_what_is_asked_for_is_said(licences: tuple[str | None, ...], says: str) -> None:
    assert any(says in note for note in licence_notes(of(*licences)))


def test_gpl_and_agpl_of_one_version_go_together() -> None:
    assert not any("conflict" in note for note in licence_notes(of("gpl-3.0", "agpl-3.0")))
