"""Every merge claims the four laws that only some can keep, or the guide says why it cannot."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from headstart import catalogue
from headstart.testing import laws

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "merge.md"
LAWS = {
    "order": {"source_order", "source_order_without_chance"},
    "copies": {"agreement", "copies", "copies_of_a_sum"},
    "one model": {"one_model", "one_model_is_itself"},
    "scale 0": {"scale_zero"},
}
COPIES = {"copies", "copies_of_a_sum"}  # of kinds whose `agreement` may be with what is trimmed of one
METHODS = [
    pytest.param(kind, name, id=f"{kind}.{name}")
    for kind in ("merging", "trimming", "weighting", "matching", "learning", "routing", "loops")
    for name in catalogue.entries(f"combination.{kind}")
]


def excused() -> set[tuple[str, str]]:
    """(law, method) of the guide's table."""
    rows = [line.split("|")[1:4] for line in GUIDE.read_text().splitlines() if line.startswith("| ")]
    told = [(said, names) for said, names, _ in rows if set(map(str.strip, said.split(","))) <= set(LAWS)]
    return {
        (law.strip(), name) for said, names in told for law in said.split(",") for name in re.findall(r"`(\w+)`", names)
    }


@pytest.mark.parametrize(("kind", "name"), METHODS)
def test_a_law_is_claimed_or_the_guide_says_why_not(kind: str, name: str) -> None:
    claims = set(catalogue.entry(f"combination.{kind}", name).claims)
    for law, words in LAWS.items():
        words = words if law != "copies" or kind in ("matching", "learning") else COPIES
        assert bool(claims & words) != ((law, name) in excused()), law


def test_the_guide_names_methods_that_there_are() -> None:
    assert len(excused()) > 30
    assert {name for _, name in excused()} <= {str(p.values[1]) for p in METHODS}


def test_a_claim_of_a_method_without_such_a_setting_fails() -> None:
    """`scale_zero` is about a setting; a method that has none cannot keep it by chance."""
    method = catalogue.make("combination.merging", "uniform_soup")
    (law,) = [one for one in laws("combination.merging", catalogue.make("combination.merging", "consensus_ta")) if
              getattr(one, "__name__", "") == "scale_zero"]  # fmt: skip
    with pytest.raises(AssertionError, match="has no setting"):
        law(method, 0)
