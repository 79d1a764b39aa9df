"""`headstart delta`: what each command prints for people and for machines."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny_models
from cli.conftest import Shell
from cli.test_json import fits


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("delta")
    for seed, name in enumerate(("base", "mails", "chats")):
        tiny_models.save_model(folder / name, "bert", seed=seed, head=name != "base")
    return folder


def test_every_command_prints_a_document_that_fits_its_schema(shelf: Path, shell: Shell, tmp_path: Path) -> None:
    for name in ("mails", "chats"):
        said = shell("delta", "diff", shelf / "base", shelf / name, "--out", f"{name}.safetensors", "--exact", "--json")
        assert fits(said, "delta")["out"] == str(tmp_path / f"{name}.safetensors")
    assert fits(shell("delta", "info", "mails.safetensors", "--json"), "delta-info")["facts"]["tuned"] == "mails"
    small = fits(shell("delta", "compress", "mails.safetensors", "--form", "int8", "--out", "s", "--json"), "delta")
    assert {f["form"] for f in small["forms"]} == {"quantised", "whole"}
    fits(shell("delta", "compare", "mails.safetensors", "s", "--json"), "delta-compare")
    stacked = shell("delta", "stack", "s", "s", "--weights", "0.5,0.5", "--out", "t", "--json")
    assert fits(stacked, "delta")["facts"]["of"] == ["s", "s"]
    fits(shell("delta", "apply", "mails.safetensors", shelf / "base", "--out", "back", "--json"), "delta-apply")
    assert (tmp_path / "back" / "model.safetensors").is_file()


def test_people_are_told_in_tables_and_a_last_line(shelf: Path, shell: Shell, tmp_path: Path) -> None:
    said = shell("delta", "diff", shelf / "base", shelf / "mails", "--out", "d.safetensors")
    assert said.out.splitlines()[-1].startswith(f"saved `{tmp_path / 'd.safetensors'}` (")
    assert "dense" in shell("delta", "info", "d.safetensors").out
    assert "cosine" in shell("delta", "compare", "d.safetensors", "d.safetensors").out
    said = shell("delta", "apply", "d.safetensors", shelf / "mails", "--out", "out")
    assert said.code == 1
    assert "made from another base" in said.err
    assert shell("delta").code == 2
