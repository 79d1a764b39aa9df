"""The catalogue: found by path, read without importing, wrong names answered with near ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart import catalogue
from headstart.core import KINDS, Needs, Problem, Source, Unfit


def test_an_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(Unfit) as caught:
        catalogue.entries("sorcery")
    assert all(kind in caught.value.fix for kind in KINDS)


def test_every_kind_has_a_folder() -> None:
    root = Path(catalogue.__file__).parent
    assert all((root / kind.replace(".", "/")).is_dir() for kind in KINDS)


def test_a_wrong_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(Unfit, match="no method") as caught:
        catalogue.entry("adaptation.routes", "linear-prob")
    assert "linear_probe" in caught.value.fix
    with pytest.raises(Unfit, match="no method") as caught:
        catalogue.entry("ranking.estimators", "ties")
    assert caught.value.fix == "see `headstart methods ranking.estimators`; `ties` is one of `combination.trimming`"


def test_a_hyphen_equals_an_underscore_and_aliases_are_known() -> None:
    assert catalogue.entry("adaptation.routes", "linear-probe") is catalogue.entry("adaptation.routes", "probe")


def test_names_of_the_field_are_methods_with_their_settings() -> None:
    for kind, name, method, consensus in (
        ("trimming", "dare_linear", "dare", "sum"), ("trimming", "DARE-TIES", "dare", "elect"),
        ("trimming", "breadcrumbs_ties", "breadcrumbs", "elect"), ("trimming", "della_linear", "della", "sum"),
    ):  # fmt: skip
        made = catalogue.make(f"combination.{kind}", name)
        assert (catalogue.name_of(made), made.consensus) == (method, consensus)
    assert catalogue.make("combination.trimming", "dare_ties", density=0.5).density == 0.5
    for kind, name, method in (
        ("routing", "representation_surgery", "surgery"), ("routing", "task_tinting", "tint"),
        ("learning", "skill_grafting", "graft"),
    ):  # fmt: skip
        assert catalogue.entry(f"combination.{kind}", name).name == method
    every = {name for kind in KINDS for name in catalogue.entries(kind)}
    assert not every & catalogue.ALIASES.keys()  # none is listed twice
    assert every >= set(catalogue.ALIASES.values())
    assert catalogue.IMPLIED.keys() <= catalogue.ALIASES.keys()


def test_a_file_with_two_public_classes_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "two_at_once.py").write_text("class A: ...\nclass B: ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(Problem, match="holds 2"):
        catalogue.read("ranking.estimators", "two_at_once", "two_at_once")


def test_needs_that_are_not_literal_are_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "computed.py").write_text("class A:\n    needs = make()\n    claims = ()\n    cites = ''\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(Problem, match="must be there"):
        catalogue.read("ranking.estimators", "computed", "computed")


def test_refusal_says_what_the_source_lacks() -> None:
    source = Source(
        name="api", kind="checkpoint", where="x", weights="w", identity="i", modality="text", gives=("predictions",)
    )
    reason = catalogue.refusal(Needs(gives=("features",)), (source,))
    assert reason == "needs features, and `api` gives predictions only"
