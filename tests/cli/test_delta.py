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
    parts: list[tuple[str, list[str], str, object]] = [
        ("scale", ["0.5"], "by", 0.5), ("trim", ["--density", "0.1", "--per", "model"], "per", "model"),
        ("mask", ["chats.safetensors"], "outside", False), ("project", ["chats.safetensors", "--rank", "2"], "rank", 2),
    ]  # fmt: skip
    for command, words, key, value in parts:
        said = fits(shell("delta", command, "mails.safetensors", *words, "--out", "p", "--json"), "delta")
        assert said["facts"]["method"] == command
        assert said["facts"][key] == value
        assert "exact" not in said["facts"]
    said = shell("delta", "trim", "mails.safetensors", "--density", "2", "--out", "q")
    assert (said.code, "density is 2.0" in said.err) == (1, True)
    fits(shell("delta", "apply", "mails.safetensors", shelf / "base", "--out", "back", "--json"), "delta-apply")
    assert (tmp_path / "back" / "model.safetensors").is_file()
    shell("delta", "diff", shelf / "base", shelf / "mails", "--out", "c")
    said = shell("delta", "revert", "c", shelf / "mails", "--out", "base", "--json")
    assert fits(said, "delta-revert")["out"] == str(tmp_path / "base")


def test_people_are_told_in_tables_and_a_last_line(shelf: Path, shell: Shell, tmp_path: Path) -> None:
    said = shell("delta", "diff", shelf / "base", shelf / "mails", "--out", "d.safetensors")
    assert said.out.splitlines()[-1].startswith(f"saved `{tmp_path / 'd.safetensors'}` (")
    assert "dense" in shell("delta", "info", "d.safetensors").out
    assert "kept of the change" not in shell("delta", "info", "d.safetensors").out
    said = shell("delta", "compress", "d.safetensors", "--form", "onebit", "--out", "s")
    told = fits(shell("delta", "info", "s", "--json"), "delta-info")
    line = f"{100 * told['change_kept']:.1f} % in squares, an error of "
    line += f"{100 * told['relative_error']:.1f} %"
    assert 0.3 < told["change_kept"] < 0.99
    for out in (said.out, shell("delta", "info", "s").out):
        assert f"kept of the change {line}" in " ".join(out.split())
    assert " % of a smaller form" in shell("delta", "compress", "s", "--form", "int4", "--out", "t").out
    assert "cosine" in shell("delta", "compare", "d.safetensors", "d.safetensors").out
    said = shell("delta", "apply", "d.safetensors", shelf / "mails", "--out", "out")
    assert said.code == 1
    assert "made from another base" in said.err
    said = shell("delta", "revert", "d.safetensors", shelf / "mails", "--out", "again")
    assert said.out.splitlines()[-1].startswith(f"saved `{tmp_path / 'again'}` (")
    assert shell("delta").code == 2


def test_what_an_exact_delta_does_not_tell_is_said(shelf: Path, shell: Shell) -> None:
    for name, words in (("e", ["--exact"]), ("d", [])):
        shell("delta", "diff", shelf / "base", shelf / "mails", "--out", name, *words)
    assert "base (" in (known := shell("delta", "info", "e").out)
    assert "exact    yes" in known
    compared = fits(shell("delta", "compare", "e", "d", "--json"), "delta-compare")
    changed = fits(shell("delta", "info", "d", "--json"), "delta-info")["forms"]
    assert compared["tensors"] + compared["whole"] == sum(f["tensors"] for f in changed)
    assert "kept whole, and not compared" in shell("delta", "compare", "e", "d").out
    assert "taken without --exact" in shell("delta", "compress", "e", "--form", "int8", "--out", "s").err
    assert "--exact" not in shell("delta", "compress", "d", "--form", "int8", "--out", "s").err


def test_a_delta_replaces_deltas_alone(shelf: Path, shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(before := (shelf / "mails" / "model.safetensors").read_bytes())
    assert shell("delta", "diff", shelf / "base", shelf / "mails", "--out", "d").code == 0
    for words in (["diff", shelf / "base", shelf / "mails"], ["scale", "d", "0.5"]):
        said = shell("delta", *words, "--out", "weights")
        assert (said.code, "it is no delta" in said.err) == (1, True)
    assert (tmp_path / "weights").read_bytes() == before
    assert shell("delta", "scale", "d", "0.5", "--out", "d").code == 0  # which 2 takes back
    (tmp_path / "rows.csv").write_text("text,label\na,b\n")
    said = shell("delta", "info", "rows.csv")
    assert (said.code, "`rows.csv` is damaged or no delta" in said.err) == (1, True)


@pytest.mark.parametrize(
    "words", [["compress", "d", "--form", "onebit"], ["trim", "d", "--density", "0.1"], ["mask", "d", "e"],
    ["project", "d", "e", "--rank", "1"], ["mask", "e", "d"], ["project", "e", "d", "--rank", "1"]],
)  # fmt: skip
def test_a_form_that_keeps_less_replaces_what_it_is_made_of_only_when_asked(
    words: list[str], shelf: Path, shell: Shell, tmp_path: Path
) -> None:
    for name, tuned in (("d", "mails"), ("e", "chats")):
        shell("delta", "diff", shelf / "base", shelf / tuned, "--out", name)
    before = (tmp_path / "d").read_bytes()
    (tmp_path / "link").symlink_to(tmp_path / "d")
    for out in ("d", "link", tmp_path / "d"):
        said = shell("delta", *words, "--out", out)
        assert (said.code, "`d` would be replaced by what keeps less of it" in said.err) == (1, True)
        assert "--overwrite" in said.err
        assert (tmp_path / "d").read_bytes() == before
    assert shell("delta", *words, "--out", "f").code == 0
    assert shell("delta", *words, "--out", "f").code == 0  # another delta, of which it is not made
    assert shell("delta", *words, "--out", "d", "--overwrite").code == 0
    assert (tmp_path / "d").read_bytes() != before


@pytest.mark.parametrize("weights", ["a,b", "0.7,", "nan,1"])
def test_weights_that_are_no_numbers_are_refused(weights: str, shelf: Path, shell: Shell) -> None:
    shell("delta", "diff", shelf / "base", shelf / "mails", "--out", "d")
    said = shell("delta", "stack", "d", "d", "--weights", weights, "--out", "t")
    assert (said.code, f"`{weights}` is no list of numbers" in said.err) == (1, True)


def test_what_cannot_be_taken_back_is_said_when_a_delta_is_taken(
    shelf: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["delta", "diff", shelf / "mails", shelf / "base", "--out", "d"]  # the head is gone
    assert "too large" not in shell(*words).err
    assert fits(shell("delta", "info", "d", "--json"), "delta-info")["kept"] == ["classifier.bias", "classifier.weight"]
    monkeypatch.setattr("headstart.combination.deltas.KEPT_BYTES", 15)
    said = " ".join(shell(*words).err.split())
    assert "`classifier.weight` of the base is too large to be held: it cannot be made again from the" in said


def test_adapters_are_merged_and_go_to_deltas_and_back(shelf: Path, shell: Shell, tmp_path: Path) -> None:
    import peft
    import torch
    from transformers import AutoModel

    for seed in range(2):
        model = AutoModel.from_pretrained(shelf / "base", local_files_only=True)
        wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["query"]))
        for name, value in wrapped.named_parameters():
            if "lora_B" in name:
                value.data = torch.randn(value.shape, generator=torch.Generator().manual_seed(seed))
        wrapped.save_pretrained(tmp_path / f"a{seed}")
    said = shell("adapter", "merge", "a0", "a1", "--weights", "0.6,0.4", "--out", "both", "--json")
    merged = fits(said, "adapter-merge")
    assert [(a["name"], a["weight"], a["ranks"]) for a in merged["adapters"]] == [("a0", 0.6, [2]), ("a1", 0.4, [2])]
    assert (merged["ranks"], merged["warnings"]) == ([4], [])
    lines = shell("adapter", "merge", "a0", "a1", "--weights", "0.6,0.4", "--out", "told").out.splitlines()
    assert [line.split() for line in lines if line.startswith("a")] == [
        ["adapter", "weight", "rank"], ["a0", "0.6", "2"], ["a1", "0.4", "2"],
    ]  # fmt: skip
    assert "(rank 4, " in lines[-1]
    fits(shell("adapter", "to-delta", "both", "--base", shelf / "base", "--out", "d", "--json"), "delta")
    told = fits(
        shell("adapter", "from-delta", "d", "--base", shelf / "base", "--rank", "4", "--out", "back", "--json"),
        "adapter-from-delta",
    )
    assert told["kept"] > 0.999
    assert (
        shell("adapter", "merge", "a0", "--out", "one").out.splitlines()[-1].startswith(f"saved `{tmp_path / 'one'}` (")
    )
    assert "kept of the change" in shell("adapter", "from-delta", "d", "--base", shelf / "base", "--out", "x").out
    shell("delta", "diff", shelf / "base", shelf / "mails", "--out", "e")
    said = shell("adapter", "from-delta", "e", "--base", shelf / "base", "--rank", "4", "--out", "y")
    assert "`classifier` is kept whole: the base has none" in said.err
    assert said.out.splitlines()[-1].startswith(f"saved `{tmp_path / 'y'}` (")
