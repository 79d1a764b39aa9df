"""`headstart merge`: what it prints for people and for machines, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

import tiny_models
from cli.conftest import Shell
from cli.test_json import fits


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and two fine-tunes of it, with heads."""
    folder = tmp_path_factory.mktemp("merge")
    tiny_models.save_model(folder / "base", "bert")
    for seed, name in enumerate(("mails", "chats")):
        tiny_models.save_model(folder / name, "bert", seed=seed, head=True)
    return folder


def test_the_last_line_says_what_was_made_and_where(shelf: Path, shell: Shell, tmp_path: Path) -> None:
    said = shell("merge", "linear", shelf / "mails", shelf / "chats", "--out", tmp_path / "out")
    assert said.code == 0
    assert said.out.splitlines()[-1].startswith(f"saved `{tmp_path / 'out'}` (")
    assert "`linear`" in said.out


def test_a_dry_run_writes_nothing_and_its_document_fits_its_schema(shelf: Path, shell: Shell, tmp_path: Path) -> None:
    words = ["merge", "ties", shelf / "mails", shelf / "chats", "--base", shelf / "base", "--set", "density=0.3"]
    document = fits(shell(*words, "--dry-run", "--json", "--out", tmp_path / "out"), "merge-plan")
    assert document["settings"]["density"] == 0.3
    assert document["labels"] == ["low", "mid", "high"]
    assert document["vocabulary"]["said"] == "the same in all (64 rows)"
    head, up = (document["tensors"][n] for n in ("classifier.weight", "bert.encoder.layer.0.intermediate.dense.weight"))
    assert head["shape"] == [3, 16]
    assert up == {"how": "merged", "rule": "`ties`", "shape": [24, 16], "dtype": "F32", "tied_with": []}
    assert document["made_from"] == {"base": None, "mails": None, "chats": None}
    assert not (tmp_path / "out").exists()
    said = shell(*words, "--dry-run")
    assert said.code == 0
    for word in (
        "density=0.3",
        "vocabulary       the same in all (64 rows)",
        "reads",
        "memory at most",
        "the mean, as `base` has no such tensor",
    ):
        assert word in said.out


@pytest.mark.parametrize("words", [["linear"], ["regmean"], ["auto", "--target", "rows.csv", "--label", "label"]])
def test_a_dry_run_foresees_that_the_folder_is_refused(
    words: list[str], shelf: Path, shell: Shell, tmp_path: Path
) -> None:
    rows = [f"the cat sat {i},{('low', 'mid', 'high')[i % 3]}" for i in range(60)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *rows]))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    words = ["merge", words[0], shelf / "mails", shelf / "chats", *words[1:], "--dry-run"]
    assert shell(*words, "--out", "new").code == 0
    said = shell(*words, "--out", "full")
    assert (said.code, "the output folder holds something already" in said.err) == (1, True)
    assert shell(*words, "--out", "full", "--overwrite").code == 0
    said = shell(*words, "--out", shelf, "--overwrite")
    assert said.code == 1
    assert "`mails` is read, and lies in the folder that --overwrite would replace" in " ".join(said.err.split())


def test_how_alike_the_models_are_is_told_where_it_counts(shelf: Path, shell: Shell) -> None:
    words = ["merge", "slerp", shelf / "mails", shelf / "chats", "--dry-run"]
    document = fits(shell(*words, "--json"), "merge-plan")
    assert document["alike"]["of"] == "weights"
    assert f"{document['alike']['cosines'][0][1]:.4f} between the models' weights" in shell(*words).out
    copies = ["merge", "tsv_m", shelf / "mails", shelf / "mails", "--base", shelf / "base"]
    assert "changed alike (cosine 1.000)" in " ".join(shell(*copies, "--dry-run").err.split())
    assert any("alike" in w for w in fits(shell(*copies, "--out", "copies", "--json"), "merge")["warnings"])


def test_a_dry_run_says_where_models_come_from_and_what_is_tied(shelf: Path, shell: Shell, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    shell("merge", "ties", shelf / "mails", shelf / "chats", "--base", shelf / "base", "--out", "merged")
    shell("merge", "linear", shelf / "mails", shelf / "chats", "--heads", "separate", "--out", "apart")
    shell("delta", "diff", shelf / "base", shelf / "mails", "--out", "d.safetensors")
    shell("delta", "apply", "d.safetensors", shelf / "base", "--out", "applied")
    words = ["merge", "linear", "merged", "applied", "apart/chats", "--dry-run"]
    origins = fits(shell(*words, "--json"), "merge-plan")["made_from"]
    found = {"by": "merge", "method": "ties", "base": "base", "models": ["mails", "chats"], "weights": None}
    mark = origins["applied"].pop("weights")
    assert len(mark) == 64
    assert origins["merged"] == {**found, "weights": mark}
    assert origins["chats"] == {**found, "method": "linear", "base": None}
    assert origins["applied"] == {"by": "delta", "method": "diff", "base": "base", "models": ["mails"]}
    said = " ".join(shell(*words).out.split())
    assert "merged is a merge by ties of mails, chats on base" in said
    assert "applied is a delta, made from mails on base" in said

    (tmp_path / "merged" / "merge.json").write_text("{")  # what cannot be read tells nothing, and stops nothing
    assert shell(*words, "--json").document["made_from"]["merged"] is None

    for name in ("one", "two"):
        table = torch.ones(4, 2)
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"tie_word_embeddings": true}')
        held = {"embed_tokens.weight": table, "lm_head.weight": table.clone()}
        save_file(held, tmp_path / name / "model.safetensors")
    tensors = fits(shell("merge", "linear", "one", "two", "--dry-run", "--json"), "merge-plan")["tensors"]
    assert tensors["embed_tokens.weight"]["tied_with"] == ["lm_head.weight"]
    shell("merge", "linear", "one", "two", "--out", "tied")
    assert list(load_file(tmp_path / "tied" / "model.safetensors")) == ["embed_tokens.weight"]
    said = " ".join(shell("merge", "linear", "one", "two", "--dry-run").out.split())
    assert "tied lm_head.weight to embed_tokens.weight" in said


def test_a_merge_is_one_document(shelf: Path, shell: Shell, tmp_path: Path) -> None:
    said = shell("merge", "task-arithmetic", shelf / "mails", "--base", shelf / "base", "--out", "out", "--json")
    document = fits(said, "merge")
    assert document["method"] == "task_arithmetic"
    assert document["out"] == str(tmp_path / "out")
    assert sum(t["tensors"] for t in document["tensors"] if t["how"] != "dropped") == len(document_tensors(tmp_path))


def test_parts_that_stay_apart_predict_by_task_and_by_router(shelf: Path, shell: Shell, tmp_path: Path) -> None:
    for name, words in (("mails", "cat dog sat"), ("chats", "house tree old")):
        lines = [f"{words} {i},{('low', 'mid', 'high')[i % 3]}" for i in range(12)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,label", *lines, ""]))
    words = ["merge", "twin_merge", shelf / "mails", shelf / "chats", "--base", shelf / "base", "--label", "label"]
    rows = ["--target", "mails=mails.csv", "--target", "chats=chats.csv", "--set", "steps=20"]
    made = fits(shell(*words, *rows, "--out", "out", "--json"), "merge")
    assert [f["folder"] for f in made["folders"]] == ["mails", "chats"]
    (tmp_path / "new.csv").write_text("text\ncat dog sat\nhouse tree old\n")
    found = fits(shell("predict", "out", "new.csv", "--task", "chats", "--json"), "predict")
    assert [p["task"] for p in found["predictions"]] == ["chats", "chats"]
    by_router = fits(shell("predict", "out", "new.csv", "--json"), "predict")
    assert [p["task"] for p in by_router["predictions"]] == ["mails", "chats"]
    one, other = (f["predictions"][1]["probabilities"] for f in (by_router, found))
    assert one == pytest.approx(other, abs=1e-6)  # but for the order of sums
    assert shell("predict", "out", "new.csv").out.startswith("task,label,low,mid,high\nmails,")
    assert "there is no task `birds`" in shell("predict", "out", "new.csv", "--task", "birds").err


def test_heads_that_stay_apart_are_folders(shelf: Path, shell: Shell, tmp_path: Path) -> None:
    words = ["merge", "linear", shelf / "mails", shelf / "chats", "--heads", "separate"]
    planned = fits(shell(*words, "--dry-run", "--json"), "merge-plan")
    head = planned["tensors"]["mails/classifier.weight"]
    assert (head["how"], head["rule"], head["shape"]) == ("copied", "head of `mails`", [3, 16])
    assert "labels of chats" in shell(*words, "--dry-run").out
    made = fits(shell(*words, "--out", "out", "--json"), "merge")
    assert [f["folder"] for f in made["folders"]] == ["mails", "chats"]
    assert made["bytes"] == planned["forecast"]["bytes_written"]
    assert (tmp_path / "out" / "chats" / "config.json").is_file()
    (tmp_path / "r.yaml").write_text(f"method: linear\nmodels: [{shelf}/mails, {shelf}/chats]\nheads: separate\n")
    assert fits(shell("merge", "r.yaml", "by-recipe", "--json"), "merge")["folders"] == made["folders"]


def test_what_was_loaded_is_told(shelf: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["merge", "linear", shelf / "mails", shelf / "chats", "--load"]
    (told,) = fits(shell(*words, "--out", "one", "--json"), "merge")["loaded"]
    assert told["outputs"] == {"logits": [3, 3]}
    said = shell(*words, "--heads", "separate", "--out", "two").out
    line = "`chats` loads as BertForSequenceClassification: 41 tensors, sentences through its tokenizer, logits 3 × 3"
    assert line in " ".join(said.split())
    monkeypatch.setattr("headstart.combination.forecasts.largest", lambda _: 10**15)
    peaks = [shell(*words[: 4 + k], "--dry-run", "--json").document["forecast"]["peak_bytes"] for k in (0, 1)]
    assert peaks[0] < 10**15 <= peaks[1]


def document_tensors(folder: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(folder / "out" / "model.safetensors", framework="np") as file:
        return list(file.keys())


def test_lists_of_numbers_are_typed_with_commas(shelf: Path, shell: Shell) -> None:
    words = ["merge", "linear", shelf / "mails", shelf / "chats", "--dry-run", "--json"]
    assert shell(*words, "--set", "weights=0.7,0.3").document["settings"]["weights"] == [0.7, 0.3]
    said = shell(*words, "--set", "weights=0.7")
    assert said.code == 1
    assert said.document["error"]["what"] == "`weights` is 0.7, and takes a list, like 0.7,0.3"


def test_a_recipes_settings_are_told_without_brackets(shelf: Path, shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "mergekit.yaml").write_text(
        f"merge_method: linear\nmodels:\n- {{model: {shelf}/mails, parameters: {{weight: 0.3}}}}\n"
        f"- {{model: {shelf}/chats, parameters: {{weight: 0.7}}}}\n"
    )
    said = " ".join(shell("merge", "mergekit.yaml", "--dry-run").out.split())
    assert "method linear (models: model " in said
    assert "parameters (weight 0.3); model " in said
    assert not set("{}[]'") & set(said)


def test_mistakes_are_answered_in_words(shelf: Path, shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\na,low\n")
    for words, what in (
        (["linear", shelf / "mails"], "no folder is named for the result"),
        (["ties", shelf / "mails", "--out", "x"], "no base is given"),
        (["linear", shelf / "mails", shelf / "chat", "--out", "x"], "did you mean `chats`?"),
        (["linear", shelf, "--out", "x"], "name one of the models in it: base, chats, mails"),
        (["linear", shelf / "mails", "--out", "x", "--shard", "5XB"], "in: --shard"),
        (["linear", shelf / "mails", "--out", "x", "--target", "mial=rows.csv"], "no model is called `mial`"),
        (["liner", shelf / "mails", "--out", "x"], "did you mean `linear`"),
    ):
        said = shell("merge", *words)
        assert said.code == 1
        assert what in said.err
        assert not Path("x").exists()


def test_what_a_merge_does_not_use_or_know_is_told(shelf: Path, shell: Shell, tmp_path: Path) -> None:
    rows = [f"the {'cat' if i % 2 else 'dog'} sat {i},{('low', 'mid', 'high')[i % 3]}" for i in range(12)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *rows]))
    words = ["merge", "linear", shelf / "mails", shelf / "chats", "--dry-run"]
    assert not shell(*words).err
    assert "`linear` reads no rows" in shell(*words, "--target", "rows.csv", "--label", "label").err
    idle = " ".join(shell(*words, "--label", "y", "--minutes", "1", "--trials", "2", "--methods", "ties").err.split())
    assert "without --target nothing is read, and --label changes nothing" in idle
    assert "--minutes and --trials change nothing: a limit is for the choice of `headstart merge auto`" in idle
    assert "--methods changes nothing" in idle
    for name in ("one", "two"):
        folder = tiny_models.save_model(tmp_path / name, "bert", head=True)
        config = json.loads((folder / "config.json").read_text())
        config |= {"id2label": {"0": "0", "1": "1", "2": "2"}, "label2id": {"0": 0, "1": 1, "2": 2}}
        (folder / "config.json").write_text(json.dumps(config))
    assert "the labels are 0, 1, …: that they mean" in shell("merge", "linear", "one", "two", "--dry-run").err


def test_auto_prints_what_came_of_the_choice(shelf: Path, shell: Shell, tmp_path: Path) -> None:
    rows = [f"the {'cat' if i % 2 else 'dog'} sat {i},{('low', 'mid', 'high')[i % 3]}" for i in range(60)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *rows]))
    words = ["merge", "auto", shelf / "mails", shelf / "chats", "--base", shelf / "base", "--label", "label"]
    words += ["--target", tmp_path / "rows.csv", "--methods", "ties"]
    document = fits(shell(*words, "--json", "--out", tmp_path / "one"), "merge-auto")
    assert Path(document["report"]).is_file()
    assert [s["name"] for s in document["systems"]][:3] == ["mails", "chats", "mean of all"]
    assert document["warnings"] == json.loads((tmp_path / "one" / "merge.json").read_text())["warnings"]
    said = shell(*words, "--out", tmp_path / "two")
    assert said.code == 0
    assert "6 merges were tried" in said.out
    assert said.out.startswith("macro-F1 on rows that no choice has seen, with 95 % intervals")
    assert "were not" not in said.out
    few = shell(*words, "--trials", "2", "--out", tmp_path / "three")
    assert "2 merges were tried" in few.out
    assert ", and 4 more were not: the budget was spent" in " ".join(few.out.split())
    assert said.out.splitlines()[-1].startswith(f"saved `{tmp_path / 'two'}`: {document['winner']}; `")


def test_auto_of_several_tasks_prints_their_own_models_and_the_ensemble(
    shelf: Path, shell: Shell, tmp_path: Path
) -> None:
    """Both models have the same labels, so both can answer for either task, and their mean lies between them."""
    words = ["merge", "auto", shelf / "mails", shelf / "chats", "--base", shelf / "base", "--label", "label"]
    for task in ("mails", "chats"):
        rows = [f"{task} {'cat' if i % 2 else 'dog'} sat {i},{('low', 'mid', 'high')[i % 3]}" for i in range(60)]
        (tmp_path / f"{task}.csv").write_text("\n".join(["text,label", *rows]))
        words += ["--target", f"{task}={tmp_path / task}.csv"]
    words += ["--methods", "karcher"]
    document = fits(shell(*words, "--json", "--out", tmp_path / "one"), "merge-auto")
    by_name = {s["name"]: s for s in document["systems"]}
    own, together = by_name["each task by its own model"], by_name["ensemble of models with a task's labels"]
    assert (own["models"], own["passes"], own["normalised"]) == (2, 1, 1)
    assert (together["models"], together["passes"]) == (2, 2)
    said = shell(*words, "--out", tmp_path / "two")
    assert said.code == 0, said.err
    assert "of own   models   passes" in said.out
    lines = said.out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("mails "))
    assert len(re.findall(r"\d\.\d{3}\b", lines[at])) == 4  # each task, the mean, and the share
    assert len(re.findall(r"\d\.\d{3} to \d\.\d{3}", lines[at + 1])) == 4
    assert all(s["normalised_low"] <= s["normalised"] <= s["normalised_high"] for s in document["systems"])
    page = Path(document["report"]).read_text()
    assert f"{100 * by_name['mails']['normalised_low']:.0f}\u00a0% to " in page
    found = next(i for i, line in enumerate(lines) if line.startswith("each task"))
    assert "that `high`, `low`, `mid` mean the same for `mails` and `chats` is taken on trust" in said.err
    name = " ".join(line.split("  ")[0] for line in lines[found : found + 2])
    assert name == "each task by its own model"  # in no more lines than the figures
    assert "ensemble of" in said.out


def test_a_dry_run_of_auto_says_who_would_take_part_and_learns_nothing(
    shelf: Path, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same entrants, refusals and rows as the choice itself, and the bytes that it then writes."""
    from headstart.combination.live import LiveMerge

    rows = [f"the {'cat' if i % 2 else 'dog'} sat {i},{('low', 'mid', 'high')[i % 3]}" for i in range(60)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *rows]))
    words = ["merge", "auto", shelf / "mails", shelf / "chats", "--base", shelf / "base", "--label", "label"]
    words += ["--target", tmp_path / "rows.csv", "--out", tmp_path / "out", "--trials", "3"]
    some = ["--methods", "ties,regmean,twin_merge"]
    with monkeypatch.context() as patch:
        patch.setattr(LiveMerge, "__init__", lambda *_, **__: pytest.fail("a model was put into memory"))
        document = fits(shell(*words, *some, "--dry-run", "--json"), "merge-auto-plan")
        every = fits(shell(*words, "--dry-run", "--json", "--minutes", "2"), "merge-auto-plan")
        said = shell(*words[:-4], "--trials", "3", *some, "--dry-run")  # a folder need not be named
    assert said.code == 0, said.err
    assert not (tmp_path / "out").exists()
    assert {"regmean", "fisher", "ties", "adamerging"} <= {e["method"] for e in every["entrants"]}
    assert (every["budget"], document["budget"]) == ({"minutes": 2, "trials": 3}, {"minutes": None, "trials": 3})
    made = fits(shell(*words, *some, "--json"), "merge-auto")
    assert sorted(e["name"] for e in document["entrants"]) == sorted(c["name"] for c in made["candidates"])
    assert document["refused"] == made["refused"] != []
    assert document["tasks"] == made["tasks"]
    kept = json.loads((tmp_path / "out" / "merge.json").read_text())["facts"]
    assert document["forecast"]["bytes_written"] == kept["bytes"]
    weights = kept["bytes"]  # all of them float32
    assert document["forecast"]["held_bytes"] > weights * 4  # one model, and what is merged of three
    assert every["forecast"]["held_bytes"] > document["forecast"]["held_bytes"]
    text = " ".join(said.out.split())
    assert "3 trials" in text
    assert "`twin_merge` keeps parts of the models apart" in text
    task = document["tasks"][0]
    assert f"rows {task['learn']} {task['choose']} {task['verify']}" in text


def test_auto_says_what_it_wants(shelf: Path, shell: Shell, tmp_path: Path) -> None:
    said = shell("merge", "auto", shelf / "mails", shelf / "chats")
    assert said.code == 1
    assert "add --out FOLDER" in said.err
    assert "add --target FILE" in shell("merge", "auto", shelf / "mails", shelf / "chats", "--dry-run").err
    said = shell("merge", "auto", shelf / "mails", shelf / "chats", "--out", tmp_path / "out")
    assert "add --target FILE" in said.err
    said = shell("merge", "regmean", shelf / "mails", shelf / "chats", "--out", tmp_path / "out")
    assert "`regmean` reads rows, and none are named" in said.err
    assert "memory at least" in shell("merge", "regmean", shelf / "mails", shelf / "chats", "--dry-run").out


def test_whose_vocabulary_it_is_can_be_said(shelf: Path, shell: Shell, tmp_path: Path) -> None:
    other = tiny_models.save_model(tmp_path / "other", "bert", seed=5, head=True)
    said = json.loads((other / "tokenizer.json").read_text())
    said["model"]["vocab"]["zebra"] = said["model"]["vocab"].pop("cat")
    (other / "tokenizer.json").write_text(json.dumps(said))
    words = ["merge", "linear", shelf / "mails", other]
    refused = shell(*words, "--dry-run")
    assert refused.code == 1
    assert "2 tokens are of `mails` or `other` alone, such as `cat`" in refused.err
    assert "--vocabulary union, base or first" in refused.err
    document = fits(shell(*words, "--vocabulary", "union", "--out", tmp_path / "out", "--json"), "merge")
    assert document["vocabulary"]["tokens"] == 30
    shown = shell(*words, "--vocabulary", "first", "--dry-run")
    assert "those of `mails`, 29 tokens" in shown.out
    assert shell("merge", "recipe.yaml", "out", "--vocabulary", "union").code == 1


def test_a_recipe_with_ranges_is_searched(shelf: Path, shell: Shell, tmp_path: Path) -> None:
    rows = [f"the {'cat' if i % 2 else 'dog'} sat {i},{('low', 'mid', 'high')[i % 3]}" for i in range(60)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *rows]))
    (tmp_path / "recipe.yaml").write_text(
        f"method: linear\nmodels: [{shelf}/mails, {shelf}/chats]\nsettings: {{weights: [{{search: [0, 1]}}, 0.5]}}\n"
    )
    look = ["merge", "recipe.yaml", "out", "--dry-run"]
    named = ["--target", "rows.csv", "--label", "label"]
    document = fits(shell(*look, "--json"), "merge-plan")
    (one,) = document["searched"]["ranges"]
    assert one == {"name": "settings.weights.0", "low": 0, "high": 1, "start": 0.5}
    assert document["forecast"]["step_seconds"] is None
    said = " ".join(shell(*look).out.split())
    assert "searches settings.weights.0 from 0 to 1, first 0.5" in said
    assert "a trial in memory; add --target to see what a trial takes" in said
    assert fits(shell(*look, *named, "--json"), "merge-plan")["forecast"]["step_seconds"] >= 0
    refused = shell("merge", "recipe.yaml", "out")
    assert refused.code == 1
    assert "to be found on rows, and none are named" in refused.err
    assert not (tmp_path / "out").exists()
    made = fits(shell("merge", "recipe.yaml", "out", *named, "--trials", "3", "--json"), "merge")
    assert len(made["searched"]["trials"]) == 3
    shown = " ".join(shell("merge", "recipe.yaml", "two", *named, "--trials", "3").out.split())
    assert "at the start" in shown
    assert "3 trials" in shown
    assert shell("merge", "out/recipe.yaml", "again").code == 0
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (
        tmp_path / "out" / "model.safetensors"
    ).read_bytes()
    assert fits(shell("merge", "out/recipe.yaml", "--dry-run", "--json"), "merge-plan")["searched"] is None


def test_ctrl_c_in_a_search_writes_the_best_so_far(
    shelf: Path, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cmaes")
    rows = [f"the {'cat' if i % 2 else 'dog'} sat {i},{('low', 'mid', 'high')[i % 3]}" for i in range(60)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *rows]))
    (tmp_path / "recipe.yaml").write_text(
        f"method: linear\nmodels: [{shelf}/mails, {shelf}/chats]\nsettings: {{weights: [{{search: [0, 1]}}, 0.5]}}\n"
    )

    def second(trial: str, best: str) -> None:
        if trial == "trial 2":
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("headstart.cli.merging.searching", lambda *_: (second, lambda: None))
    asked = ["merge", "recipe.yaml", "--target", "rows.csv", "--label", "label", "--out"]
    said = shell(*asked, "out")
    assert said.code == 130
    assert "ended by Ctrl-C, and the best of 2 trials is written now" in " ".join(said.err.split())
    assert "2 trials, ended by Ctrl-C" in " ".join(said.out.split())
    assert (tmp_path / "out" / "model.safetensors").exists()
    said = shell(*asked, "two", "--json")
    assert said.code == 130
    assert fits(said, "merge")["searched"]["stopped"] == "interrupt"


def test_a_recipe_may_name_a_method_that_reads_rows(shelf: Path, shell: Shell, tmp_path: Path) -> None:
    rows = [f"the {'cat' if i % 2 else 'dog'} sat {i},{('low', 'mid', 'high')[i % 3]}" for i in range(60)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *rows]))
    (tmp_path / "recipe.yaml").write_text(f"method: regmean\nmodels: [{shelf}/mails, {shelf}/chats]\n")
    refused = shell("merge", "recipe.yaml", "out")
    assert refused.code == 1
    assert "`regmean` reads rows, and none are named" in refused.err
    named = ["--target", "rows.csv", "--label", "label"]
    assert fits(shell("merge", "recipe.yaml", "out", *named, "--json"), "merge")["method"] == "regmean"
    shell("merge", "regmean", shelf / "mails", shelf / "chats", *named, "--out", "by-command")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (
        tmp_path / "by-command" / "model.safetensors"
    ).read_bytes()
