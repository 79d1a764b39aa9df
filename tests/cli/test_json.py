"""What `--json` prints is one document, and the published schema describes it."""

from __future__ import annotations

import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

import headstart as hs
import tiny_models
from cli.conftest import Said, Shell, houses, table, tickets
from headstart.core import Measured
from headstart.inventory.recall import signature_of
from headstart.inventory.records import Run, Trial
from inventory.shelves import a_target

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"


def validator(name: str) -> Draft202012Validator:
    held = {file.name: json.loads(file.read_text(encoding="utf-8")) for file in sorted(SCHEMAS.glob("*.json"))}
    registry: Registry[Any] = Registry().with_resources([(n, Resource.from_contents(s)) for n, s in held.items()])
    return Draft202012Validator(held[f"{name}.json"], registry=registry)


def fits(said: Said, name: str) -> dict[str, Any]:
    """The document, after it was held against its schema."""
    document = said.document
    validator(name).validate(document)
    return document


@pytest.mark.parametrize("file", sorted(SCHEMAS.glob("*.json")), ids=lambda f: f.stem)
def test_a_schema_is_one_itself_and_says_what_it_describes(file: Path) -> None:
    schema = json.loads(file.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    assert schema["title"]
    assert schema["description"]


def test_the_target_card(shell: Shell, ticket_file: Path) -> None:
    card = fits(shell("inspect", ticket_file, "--json"), "inspect")
    assert (card["task"]["type"], card["labelled"], card["test"]) == ("single_label", 40, 0)


def test_the_target_card_of_numbers(shell: Shell, tmp_path: Path) -> None:
    card = fits(shell("inspect", houses(tmp_path / "h.csv"), "--label", "price", "--json"), "inspect")
    assert [f["kind"] for f in card["columns"]["features"]] == ["number", "category"]


def test_the_target_card_of_images(shell: Shell, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        tiny_models.images(tmp_path / "pets" / name, count=8, seed=len(name))
    (tmp_path / "pets" / "cat" / "broken.png").write_bytes(b"\x89PNG and no more")
    for name in ("cat", "dog"):
        for at in (0, 2, 4):
            source = tmp_path / "pets" / name / "3-1.png"
            shutil.copy(source, tmp_path / "pets" / name / f"copy-{at}.png")
    card = fits(shell("inspect", tmp_path / "pets", "--json"), "inspect")
    assert card["modality"] == "image"
    assert card["unreadable"]["train"]["rows"] == 1


def test_methods(shell: Shell) -> None:
    document = fits(shell("methods", "--json"), "methods")
    assert {"linear_probe", "logme", "majority"} <= {m["name"] for m in document["methods"]}
    told = {
        m["name"]: [m[k] for k in ("same_base", "rows", "holds", "fewest", "most")]
        for m in document["methods"]
        if m["stage"] == "combination"
    }
    assert told["linear"] == [False, "none", "tiles", 1, None]
    assert told["slerp"] == [False, "none", "tiles", 2, 2]
    assert told["iso_c"] == [True, "none", "tensors", 1, None]
    assert told["regmean"] == [False, "inputs", "model", 1, None]
    assert told["atlas"] == [True, "labels", "model", 1, None]
    assert told["emr"] == [True, "optional", "model", 1, None]
    assert told["greedy_ensemble"] == [False, "labels", None, None, None]
    rows = {m["name"]: m["rows"] for m in document["methods"]}
    assert (rows["logme"], rows["energy"], rows["portfolio"]) == ("labels", "inputs", "none")
    fewer = fits(shell("methods", "adaptation.routes", "--json"), "methods")
    assert {m["kind"] for m in fewer["methods"]} == {"adaptation.routes"}


def test_doctor(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    document = fits(shell("doctor", "--json"), "doctor")
    assert {"torch", "bank", "memory"} <= {c["name"] for c in document["checks"]}


def test_solve_without_a_shelf(shell: Shell, tmp_path: Path) -> None:
    train, test = houses(tmp_path / "train.csv"), houses(tmp_path / "test.csv", seed=1)
    said = shell(
        "solve", train, "--label", "price", "--test", test, "--trials", 1, "--out", tmp_path / "out", "--json"
    )  # fmt: skip
    document = fits(said, "solve")
    assert (said.code, document["verdict"], document["returned"]) == (0, "no-evidence", "no-transfer")
    assert (document["protocol"], document["candidate"]) == ("user_test", None)


def test_the_demo_says_what_solve_says(shell: Shell, text_result: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.demonstration.demonstrate", lambda out, **settings: hs.load(text_result))
    document = fits(shell("demo", "--json"), "demo")
    assert document["metric"] == "macro_f1"


def test_predictions(shell: Shell, text_result: Path, number_result: Path, tmp_path: Path) -> None:
    document = fits(shell("predict", text_result, tickets(tmp_path / "new.csv", 6), "--json"), "predict")
    assert document["rows"] == 6
    assert sum(document["predictions"][0]["probabilities"].values()) == pytest.approx(1)
    numbers = fits(shell("predict", number_result, houses(tmp_path / "h.csv", 3), "--json"), "predict")
    assert [p["probabilities"] for p in numbers["predictions"]] == [None] * 3


def test_report(shell: Shell, text_result: Path) -> None:
    document = fits(shell("report", text_result, "--json"), "report")
    assert Path(document["report"]).is_file()
    assert Path(document["card"]).is_file()


def test_the_shelf(shell: Shell, models: Path, tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    shutil.copytree(models, shelf)
    (shelf / "broken").mkdir()
    (shelf / "broken" / "config.json").write_text("{")
    added = fits(shell("inventory", "add", shelf, "--json"), "inventory-add")
    assert ([s["name"] for s in added["sources"]], [f["name"] for f in added["failed"]]) == (["tiny"], ["broken"])
    assert fits(shell("inventory", "list", "--json"), "inventory-list")["sources"] == added["sources"]
    shown = fits(shell("inventory", "show", "tiny", "--json"), "inventory-show")
    assert shown["source"]["facts"]["width"] == 16
    assert fits(shell("inventory", "verify", "--json"), "inventory-verify") == {"damage": [], "sources": 1}
    (shelf / "tiny" / "model.safetensors").unlink()
    damaged = shell("inventory", "verify", "--json")
    assert (damaged.code, fits(damaged, "inventory-verify")["damage"][0]["what"]) == (1, "missing")
    removed = fits(shell("inventory", "remove", "tiny", "--json"), "inventory-remove")
    assert removed["removed"]["id"] == added["sources"][0]["id"]
    assert fits(shell("inventory", "list", "--json"), "inventory-list") == {"sources": []}


def test_records_of_runs_from_elsewhere(shell: Shell, tmp_path: Path) -> None:
    runs = [("rte", "mnli", "lora", "accuracy", 0.7), ("rte", "qqp", "lora", "accuracy", 0.6)]
    file = table(tmp_path / "runs.csv", ("target", "source", "method", "metric", "value"), runs)
    assert fits(shell("inventory", "list", "--records", "--json"), "inventory-list-records") == {"origins": []}
    assert "headstart inventory import" in shell("inventory", "list", "--records").out
    first = fits(shell("inventory", "import", file, "--json"), "inventory-import")
    assert first == {"rows": 2, "added": 2, "origins": ["runs"]}
    assert "2 were known" in shell("inventory", "import", file).out
    (one,) = fits(shell("inventory", "list", "--records", "--json"), "inventory-list-records")["origins"]
    assert one == {"name": "runs", "records": 2, "valid": 0, "targets": 1, "sources": 2,
                   "keys": [{"method": "lora", "metric": "accuracy"}]}  # fmt: skip
    assert "lora: accuracy" in shell("inventory", "list", "--records").out
    wrong = shell("inventory", "import", table(tmp_path / "bad.csv", ("target", "sauce"), [("a", "b")]), "--json")
    assert (wrong.code, fits(wrong, "error")["error"]["class"]) == (1, "Unfit")


def test_past_targets_that_are_alike(shell: Shell, ticket_file: Path, tmp_path: Path) -> None:
    asked = ("inventory", "similar", ticket_file, "--label", "intent")
    assert fits(shell(*asked, "--json"), "inventory-similar") == {"targets": []}
    assert "the bank learns one from every" in shell(*asked).out
    test = tickets(tmp_path / "test.csv", seed=1)
    solved = shell("solve", ticket_file, "--label", "intent", "--test", test, "--trials", 1, "--out", tmp_path / "r")
    assert solved.code == 0, solved.err
    (one,) = fits(shell(*asked, "--json"), "inventory-similar")["targets"]
    assert one["near"]
    assert one["similarity"] == pytest.approx(1.0)
    assert {s["name"] for s in one["systems"]} >= {"majority", "word_char_tfidf"}
    assert [s["value"] for s in one["systems"]] == sorted((s["value"] for s in one["systems"]), reverse=True)
    for system in one["systems"]:
        assert system["low"] <= system["value"] <= system["high"]
        assert system["rows"] == 40
    assert one["verdicts"] == [{"verdict": "no-evidence", "of": None}]
    told = shell(*asked)
    for system in one["systems"]:
        between = f"{system['low']:.3f} to {system['high']:.3f}"
        assert re.search(rf"{system['name']} +{system['value']:.3f} +{between}", told.out)
    assert "near" in told.out
    assert re.search(r"tickets +no-evidence +no system: none with a source was a candidate", told.out)


def test_a_verdict_stands_beside_the_system_that_it_is_of(shell: Shell, ticket_file: Path, home: Path) -> None:
    target, nan = hs.read_target(ticket_file, label="intent"), float("nan")
    kind, figures = (
        "adaptation.routes",
        {"plain": Measured(0.632, 0.6, 0.7, 40), "lora of x": Measured(0.5, nan, nan, 9)},
    )
    trials = [Trial(name=name, kind=kind, method="lora", valid=valid) for name, valid in figures.items()]
    with hs.Inventory() as bank:
        bank.record_target(target, signature_of(target))
        summary = {"candidate": {"name": "lora of x", "value": 0.5, "low": 0.4, "high": 0.6}}
        bank.record_run(Run(id="a", target=target.fingerprint, verdict="hurts", summary=summary), trials=trials)
    asked = ("inventory", "similar", ticket_file, "--label", "intent")
    (one,) = fits(shell(*asked, "--json"), "inventory-similar")["targets"]
    assert [(s["name"], s["low"], s["high"], s["rows"]) for s in one["systems"]] == [
        ("plain", 0.6, 0.7, 40), ("lora of x", None, None, 9),
    ]  # fmt: skip
    assert one["verdicts"] == [{"verdict": "hurts", "of": "lora of x"}]
    lines = shell(*asked).out.splitlines()
    assert [" ".join(line.split()) for line in lines if "plain" in line or "hurts" in line or "unknown" in line] == [
        "tickets 1.00 near plain 0.632 0.600 to 0.700 macro-F1", "lora of x 0.500 unknown", "tickets hurts lora of x",
    ]  # fmt: skip


def test_a_converted_pickle(shell: Shell, models: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    folder = tmp_path / "old"
    shutil.copytree(models / "tiny", folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    refused = fits(shell("inventory", "add", folder, "--json"), "inventory-add")["failed"][0]
    assert refused["fix"] == f"headstart inventory convert {folder}"
    document = fits(shell("inventory", "convert", folder, "--json"), "inventory-convert")
    assert document["made"] == [str(folder / "model.safetensors")]
    assert fits(shell("inventory", "add", folder, "--json"), "inventory-add")["failed"] == []


def test_rank_and_adapt(shell: Shell, models: Path, ticket_file: Path, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.json").write_text("{}")
    asked = ("rank", ticket_file, "--sources", models, "--sources", tmp_path / "bad", "--method", "nmc,leep")
    document = fits(shell(*asked, "--json"), "rank")
    assert [(s["name"], list(s["proxies"])) for s in document["sources"]] == [("tiny", ["nmc"])]
    assert "no head" in document["sources"][0]["refused"]["leep"]
    assert "`leep` says nothing of `tiny`" in shell(*asked).err
    assert [f["name"] for f in document["failed"]] == ["bad"]
    assert document["passes"]["rows"] == document["passes"]["full"]
    deep = fits(shell(*asked[:4], "--method", "nmc", "--layers", "0,-1", "--pooling", "cls", "--json"), "rank")
    assert {(s["name"], s["layer"], s["pooling"]) for s in deep["sources"]} == {
        ("tiny", None, "mean"), ("tiny@0:cls", 0, "cls"), ("tiny@1:cls", 1, "cls"),
    }  # fmt: skip
    assert deep["passes"] == document["passes"]
    picked = shell(*asked[:4], "--method", "nmc", "--layers", "0,-1", "--pooling", "cls").err
    assert "3 layers and poolings were tried: the best, picked on these rows, is likely to do worse on others" in picked
    assert "makes no allowance for the pick" in picked
    assert "layers and poolings" not in shell(*asked).err, "one way to read a source is no pick"
    assert document["sets"] == []
    assert document["sources"][0]["expected"] == []
    first = document["sources"][0]
    assert (first["predicted"]["route"], first["predicted"]["basis"]) == ("linear_probe", "cross-validated here")
    assert first["predicted"]["value"] == first["score"]
    assert first["low"] < first["predicted"]["low"] <= first["score"], "its own interval, of 90 % in place of 95 %"
    assert document["sources"][0]["certainty"]["first"] == 1.0
    expected = fits(shell(*asked, "--expect", "--fusion", "isotonic", "--json"), "rank")["sources"][0]["expected"]
    assert [e["route"] for e in expected if e["value"] is not None] == ["linear_probe"]
    assert "no past target" in expected[-1]["basis"]
    told = shell(*asked, "--expect")
    assert "to expect" in told.out
    assert "nothing can be said of" in told.err
    assert "it is the only one that was scored" in told.err
    assert "fusion" in shell(*asked, "--expect", "--fusion", "nothing").err
    out = tmp_path / "tuned"
    adapted = shell(
        "adapt", ticket_file, "--source", models / "tiny", "--method", "linear_probe", "--out", out, "--json"
    )  # fmt: skip
    assert fits(adapted, "adapt")["method"] == "linear_probe"
    assert out.is_dir()


def test_rank_by_one_score_of_past_runs(shell: Shell, models: Path, tmp_path: Path) -> None:
    """What came of nine past targets outweighs a better probe, where labels are chance to all probes."""
    draw = random.Random(0)
    rows = [
        (f"{draw.choice(tiny_models.WORDS)} {draw.choice(tiny_models.WORDS)} {at}", "ab"[at % 2]) for at in range(40)
    ]
    folder = tmp_path / "two"
    shutil.copytree(models, folder)
    tiny_models.save_model(folder / "other", "bert", num_hidden_layers=1, seed=3)
    file = table(tmp_path / "chance.csv", ("text", "kind"), rows)
    asked = ("rank", file, "--label", "kind", "--sources", folder, "--method", "nmc")
    first, last = fits(shell(*asked, "--json"), "rank")["sources"]
    assert {s["predicted"]["basis"] for s in (first, last)} == {"cross-validated here"}
    with hs.Inventory() as bank:
        by_id = {s.id: s.identity for s in bank.sources()}
        for n in range(9):
            past = {first["id"]: (0.3 + 0.01 * n, 0.0), last["id"]: (0.2, 0.5 + 0.01 * (n % 3))}
            _solved_before(bank, f"t{n}", {by_id[i]: told for i, told in past.items()})
    document = fits(shell(*asked, "--json"), "rank")
    assert [s["id"] for s in document["sources"]] == [last["id"], first["id"]]
    told = document["sources"][0]
    assert (told["predicted"]["route"], told["predicted"]["targets"], told["predicted"]["runs"]) == ("lora", 9, 18)
    assert told["predicted"]["basis"] == "from 18 past runs on 9 targets"
    assert told["score"] == last["score"], "the probe is still told"
    assert told["predicted"]["low"] <= told["predicted"]["value"] <= told["predicted"]["high"]
    assert told["expected"] == []
    assert {"linear_probe", "lora"} <= {
        e["route"] for e in fits(shell(*asked, "--expect", "--json"), "rank")["sources"][0]["expected"]
    }
    said = shell(*asked)
    assert f"`{last['name']}` looks best" in said.out
    assert "lora, from 18 past runs on 9" in said.out
    assert "by `lora`" in said.err
    assert "to expect" not in said.out


def _solved_before(bank: hs.Inventory, name: str, told: dict[str, tuple[float, float]]) -> None:
    """A past target in the bank; told: of each source, its probe, and how much `lora` gained over that."""
    target = a_target(name, train=[f"{name} {n}" for n in range(8)], test=[f"{name} test"])
    bank.record_target(target)
    trials = [
        Trial(name=s, kind="adaptation.routes", method=method, source=s, valid=Measured(value, value, value, 8))
        for s, (probe, gain) in told.items()
        for method, value in (("linear_probe", probe), ("lora", probe + gain))
    ]
    bank.record_run(Run(id=name, target=target.fingerprint), trials=trials)


def test_rank_of_data_sets(shell: Shell, models: Path, ticket_file: Path, tmp_path: Path) -> None:
    (tmp_path / "sets").mkdir()
    tickets(tmp_path / "sets" / "more.csv", seed=1)
    shutil.copy(ticket_file, tmp_path / "sets" / "same.csv")
    (tmp_path / "sets" / "broken.csv").write_text("")
    asked = ("rank", ticket_file, "--datasets", tmp_path / "sets")
    document = fits(shell(*asked, "--method", "frechet,renyi", "--json"), "rank-datasets")
    assert [(d["name"], d["rows"], d["shared"]) for d in document["datasets"]] == [("same", 40, 40), ("more", 40, 0)]
    assert document["datasets"][0]["divergences"]["frechet"] == pytest.approx(0, abs=1e-9)
    assert [f["name"] for f in document["failed"]] == ["broken.csv"]
    encoded = fits(shell(*asked, "--method", "mmd", "--sources", models, "--json"), "rank-datasets")
    assert encoded["embedding"] == "`tiny`"
    tasks = shell(*asked, "--method", "mmd,task2vec,covariance-alignment", "--sources", models, "--json")
    held = fits(tasks, "rank-datasets")["datasets"]
    assert [list(one["similarities"]) for one in held] == 2 * [["task2vec", "covariance_alignment"]]
    both = shell(*asked, "--method", "mmd,covariance_alignment", "--sources", models)
    assert "similarities (1 is the same task)" in both.out
    assert "needs gradients, and no source was given" in shell(*asked, "--method", "task2vec").err
    said = shell(*asked)
    assert said.out.splitlines()[-1].startswith("ranked 2 data sets in ")
    assert "data set `broken.csv` is left out" in said.err
    assert "leave --layers" in shell(*asked, "--layers", "all").err
    for name in ("more.csv", "same.csv"):
        (tmp_path / "sets" / name).write_text("")
    none = shell(*asked)
    assert none.code == 1
    assert none.err.count("is left out: the file is empty") == 3


def test_maps_from_a_base(shell: Shell, models: Path, ticket_file: Path, tmp_path: Path) -> None:
    shelf, rows = tmp_path / "shelf", table(tmp_path / "texts.csv", ("text",), said_in(ticket_file, tmp_path))
    shutil.copytree(models / "tiny", shelf / "base")
    tiny_models.save_model(shelf / "tuned", "bert", num_hidden_layers=1, seed=1)
    tiny_models.save_model(shelf / "eyes", "vit", num_hidden_layers=1)
    early = shell("rank", ticket_file, "--maps", shelf / "base", "--json")
    assert "there is no map from `base`" in fits(early, "error")["error"]["what"]
    asked = ("inventory", "map", shelf, "--base", "base", "--on", rows)
    made = fits(shell(*asked, "--json"), "inventory-map")
    assert [(m["name"], m["width"]) for m in made["maps"]] == [("tuned", 16)]
    assert ["it reads images" in f["error"] for f in made["failed"]] == [True]
    said = shell(*asked)
    assert said.out.splitlines()[-1].startswith("saved 1 map from `base` in ")
    assert "source `eyes` has no map" in said.err
    shutil.rmtree(shelf / "tuned")  # what has a map is not opened
    ranked = fits(shell("rank", ticket_file, "--maps", "base", "--method", "logme,nmc", "--json"), "rank-maps")
    assert {s["name"]: s["map"] is None for s in ranked["sources"]} == {"base": True, "tuned": False}
    assert [list(s["proxies"]) for s in ranked["sources"]] == [["logme", "nmc"]] * 2
    told = shell("rank", ticket_file, "--maps", "base")
    assert told.out.splitlines()[-1].startswith("ranked 2 sources by maps from `base` in ")
    assert "leave --layers" in shell("rank", ticket_file, "--maps", "base", "--layers", "all").err
    few = shell("inventory", "map", "tuned", "--base", "base", "--on", ticket_file, "--rows", 9, "--json")
    assert (few.code, fits(few, "error")["error"]["class"]) == (1, "Unfit")
    assert shell("rank", ticket_file, "--maps", shelf).code == 1  # a folder of several


def test_what_sources_decide(shell: Shell, models: Path, ticket_file: Path, tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    shutil.copytree(models / "tiny", shelf / "headless")
    tiny_models.save_model(shelf / "judge", "bert", num_hidden_layers=1, head=True)
    asked = ("inventory", "ask", shelf, "--on", ticket_file)
    document = fits(shell(*asked, "--json"), "inventory-ask")
    assert [s["name"] for s in document["sources"]] == ["judge"]
    assert ["is asked for predictions" in f["error"] for f in document["failed"]] == [True]
    said = shell(*asked)
    assert said.out.startswith("saved what 1 source decided in ")
    assert "source `headless` has no answers" in said.err
    assert shell("inventory", "ask", "headless", "--on", ticket_file).code == 1
    shutil.copytree(models / "tiny", tmp_path / "other" / "judge")  # of one name with the one that has a head
    both = ("inventory", "ask", shelf / "judge", tmp_path / "other" / "judge", "--on", ticket_file)
    two = fits(shell(*both, "--json"), "inventory-ask")
    assert [s["id"] for s in two["sources"]] == [document["sources"][0]["id"]]
    assert [f["name"] for f in two["failed"]] == ["judge"]
    assert "other/judge` has no answers" in shell(*both).err


def test_experts_by_what_they_were_trained_on(shell: Shell, models: Path, ticket_file: Path, tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    shutil.copytree(models / "tiny", shelf / "eyes")
    for seed, name in enumerate(("one", "other"), 1):
        tiny_models.save_model(shelf / name, "bert", num_hidden_layers=1, seed=seed)
    asked = ("rank", ticket_file, "--experts", "eyes")
    assert shell("inventory", "add", shelf).code == 0
    assert "no source has instances" in fits(shell(*asked, "--json"), "error")["error"]["what"]
    noise = table(tmp_path / "noise.csv", ("text",), [[t] for t in tiny_models.texts(40)["text"].to_pylist()])
    for name, file in (("one", ticket_file), ("other", noise)):
        said = ("inventory", "sample", name, "--encoder", "eyes", "--on", file)
        document = fits(shell(*said, "--json"), "inventory-sample")
        assert (document["source"]["name"], document["encoder"]["name"], document["kept"]) == (name, "eyes", 40)
    found = fits(shell(*asked, "--json"), "rank-experts")
    assert [source["name"] for source in found["sources"]] == ["one", "other"]
    assert found["sources"][0]["share"] > 0.9
    assert (found["inputs"], found["novel"]) == (32, False)
    told = shell(*asked)
    assert told.out.splitlines()[-1].startswith("ranked 2 sources by their instances in ")
    assert "32 inputs voted" in told.err
    assert "leave --method out" in shell(*asked, "--method", "logme").err
    assert "ask for one at a time" in shell(*asked, "--maps", "eyes").err


def test_rank_without_time(shell: Shell, models: Path, ticket_file: Path) -> None:
    said = shell("rank", ticket_file, "--sources", models, "--minutes", 1e-6, "--json")
    (one,) = fits(said, "rank")["sources"]
    assert (said.code, one["stopped"], one["score"], one["rows"], one["loss"]) == (3, "time", None, 0, None)
    assert "stopped by the end of its time" in one["words"][0]


def said_in(file: Path, folder: Path) -> list[list[str]]:
    """The texts of a file of tickets, and of another."""
    more = tickets(folder / "more.csv", 60, seed=2)
    return [[line.rpartition(",")[0]] for one in (file, more) for line in one.read_text().splitlines()[1:]]


def test_rank_of_rows_with_several_labels(shell: Shell, models: Path, tmp_path: Path) -> None:
    words = tiny_models.WORDS
    rows = [
        (
            f"{words[at % 24]} {words[at * 7 % 24]} n{at}",
            "|".join(t for t, n in (("big", 2), ("old", 3)) if at % n == 0),
        )
        for at in range(60)
    ]
    asked = ("rank", table(tmp_path / "multi.csv", ("text", "tags"), rows), "--label", "tags", "--sources", models)
    document = fits(shell(*asked, "--json"), "rank")
    (one,) = document["sources"]
    assert one["low"] <= one["score"] <= one["high"]
    assert {"logme", "nmc", "ridge_probe", "knn_loo"} <= set(one["proxies"])
    assert one["lost_words"] == 0
    assert re.search(r"^ +predicted\nsource +micro-F1 +90 % interval", shell(*asked).out, re.MULTILINE)


def test_rank_of_text_pairs(shell: Shell, models: Path, tmp_path: Path) -> None:
    words = tiny_models.WORDS
    rows = [(f"{words[at % 24]} n{at}", words[(at + at % 2) % 24], "yn"[at % 2]) for at in range(50)]
    file = table(tmp_path / "pairs.csv", ("premise", "claim", "label"), rows)
    said = shell("rank", file, "--pair", "premise,claim", "--label", "label", "--sources", models, "--json")
    (one,) = fits(said, "rank")["sources"]
    assert one["low"] <= one["score"] <= one["high"]


def test_rank_of_numbers(shell: Shell, models: Path, tmp_path: Path) -> None:
    words = tiny_models.WORDS
    rows = [(f"{words[at % 24]} {words[at * 5 % 24]} n{at}", f"{at % 24 + at / 100:.2f}") for at in range(60)]
    asked = ("rank", table(tmp_path / "numbers.csv", ("text", "price"), rows), "--label", "price", "--sources", models)
    (one,) = fits(shell(*asked, "--json"), "rank")["sources"]
    assert one["low"] <= one["score"] <= one["high"]
    assert {"logme", "ridge_probe"} <= set(one["proxies"])
    assert re.search(r"^ +predicted\nsource +RMSE +90 % interval", shell(*asked).out, re.MULTILINE)


def test_rank_of_texts_that_are_longer_than_the_model_takes(shell: Shell, models: Path, tmp_path: Path) -> None:
    words = tiny_models.WORDS
    rows = [(f"{['card', 'refund'][at % 2]} n{at} " + " ".join(words) * 40, "ab"[at % 2]) for at in range(40)]
    said = shell("rank", table(tmp_path / "long.csv", ("text", "label"), rows), "--sources", models, "--json")
    (one,) = fits(said, "rank")["sources"]
    assert (said.code, one["rows"], one["dropped"]) == (0, 40, None)
    assert one["low"] <= one["score"] <= one["high"]


def test_every_score_is_explained(shell: Shell, ticket_file: Path, tmp_path: Path) -> None:
    for seed in range(5):
        tiny_models.save_model(tmp_path / "shelf" / f"enc{seed}", "bert", num_hidden_layers=1, seed=seed)
    said = shell("rank", ticket_file, "--sources", tmp_path / "shelf", "--method", "nmc")
    order = [line.split()[0] for line in said.out.splitlines()[3:8]]
    assert [line for line in said.err.splitlines() if "it saw" in line] == [
        line for name in order[:3] for line in said.err.splitlines() if line.startswith(f"`{name}`: it saw")
    ]
    assert "\n\n\n" not in said.out, "blank lines go where the words go that they set apart"
    assert said.err.count("\n\n") + said.err.startswith("\n") == 3
    others = said.out[said.out.index("the others") :].splitlines()
    assert [line.split()[0] for line in others[2:4]] == order[3:]
    for line in others[2:4]:
        assert re.search(
            r" -?0\.\d+ +-?0\.\d+ to -?0\.\d+ +(these rows do|equal so far|about [\d,]+ labelled rows)", line
        )
    assert max(map(len, said.out.splitlines())) <= 100


def test_two_sources_of_one_name_are_two_and_told_apart(
    shell: Shell, models: Path, ticket_file: Path, tmp_path: Path
) -> None:
    for seed, folder in enumerate(("a", "b"), 1):
        tiny_models.save_model(tmp_path / folder / "enc", "bert", num_hidden_layers=1, seed=seed)
    shelf = ("--sources", tmp_path / "a", "--sources", tmp_path / "b")
    asked = ("rank", ticket_file, *shelf, "--sources", models, "--method", "nmc", "--sets", 2)
    sources = fits(shell(*asked, "--json"), "rank")["sources"]
    assert sorted(s["name"] for s in sources) == ["enc", "enc", "tiny"]
    shown = [f"enc ({s['id']})" if s["name"] == "enc" else "tiny" for s in sources]
    assert len(set(shown)) == 3
    assert {s["certainty"]["rival"] for s in sources} == {*shown[:2]}
    told = shell(*asked)
    for name in shown:
        assert sum(line.startswith(f"{name} ") for line in told.out.splitlines()) >= 2, "in both tables"
        assert f"`{name}`: it saw" in told.err
    assert f"ahead of `{shown[1]}`" in told.err
    assert f"behind `{shown[0]}`" in told.err
    assert told.out.splitlines()[-1].endswith(f": `{shown[0]}` looks best")
    assert not re.search(r"`enc`", told.out + told.err)


def tagged(file: Path, *, longest: int = 0) -> Path:
    """Sentences of which every tree has a tag; the eighth is so much longer."""
    words, lines = tiny_models.WORDS, []
    for at in range(40):
        some = [words[(at * 5 + n * n) % 24] for n in range(3 + at % 4)] + ["hill"] * (longest if at == 7 else 0)
        lines += [f"{word} {'B-PLANT' if word == 'tree' else 'O'}" for word in some] + [""]
    file.write_text("\n".join(lines))
    return file


def test_rank_of_tagged_words(shell: Shell, models: Path, tmp_path: Path) -> None:
    asked = ("rank", tagged(tmp_path / "words.conll", longest=60), "--sources", models)
    document = fits(shell(*asked, "--json"), "rank")
    (one,) = document["sources"]
    assert one["low"] <= one["score"] <= one["high"]
    assert {"logme", "lda", "nmc", "ridge_probe", "knn_loo"} <= set(one["proxies"])
    assert (one["rows"], document["passes"]["full"]) == (40, 40)
    assert one["lost_words"] > 0
    told = shell(*asked)
    assert re.search(r"^ +predicted\nsource +span F1 +90 % interval", told.out, re.MULTILINE)
    assert "words have no features" in told.err
    assert "leave --pooling out" in shell(*asked, "--pooling", "cls").err


def test_rank_of_tagged_words_by_taggers_own_heads(shell: Shell, models: Path, tmp_path: Path) -> None:
    file, shelf = tagged(tmp_path / "words.conll"), tmp_path / "shelf"
    shutil.copytree(models / "tiny", shelf / "bare")
    tiny_models.save_model(shelf / "texts", "bert", num_hidden_layers=1, head=True)
    tiny_models.save_model(shelf / "tagger", "distilbert", n_layers=1, tags=["none", "plant"])
    read = ["agreement", "energy", "etran", "leep", "nce", "nce_cv"]
    asked = ("rank", file, "--sources", shelf, "--method", ",".join([*read, "e_leep"]), "--sets", 2)
    document = fits(shell(*asked, "--json"), "rank")
    ranked = {s["name"]: s for s in document["sources"]}
    assert {name: sorted(s["proxies"]) for name, s in ranked.items()} == {"tagger": read, "texts": [], "bare": []}
    for name, reason in (("texts", "predicts whole rows"), ("bare", "has no head of its own")):
        assert sorted(ranked[name]["refused"]) == read
        assert all(reason in one for one in ranked[name]["refused"].values())
    (chosen,) = document["sets"]
    assert [m["name"] for m in chosen["members"]] in (["tagger"], [])
    assert {s["name"]: s["error"] for s in chosen["left_out"]} == {
        "texts": "needs predictions of each word, and the head of `texts` predicts whole rows",
        "bare": "needs predictions, and `bare` gives features, gradients, weights only",
    }
    told = shell(*asked[:-4], "--method", "leep,agreement")
    assert told.code == 0
    assert "`leep`" in told.err
    shelved = fits(shell("inventory", "add", shelf, "--json"), "inventory-add")
    gives = {s["name"]: s["gives"][-1] for s in shelved["sources"]}
    assert gives == {"bare": "weights", "texts": "predictions", "tagger": "word_predictions"}
    fitting = {
        one["name"] for one in fits(shell("methods", "--fits", shelf / "tagger", "--json"), "methods")["methods"]
    }
    assert {*read, "e_leep", "nmc", "fisher"} <= fitting
    assert not {"greedy_soup", "mcnemar", "evolve"} & fitting


def test_rank_with_sets(shell: Shell, models: Path, ticket_file: Path, tmp_path: Path) -> None:
    shelf = tmp_path / "two"
    shutil.copytree(models / "tiny", shelf / "one")
    tiny_models.save_model(shelf / "other", "bert", num_hidden_layers=1, seed=1, head=True)
    asked = ("rank", ticket_file, "--sources", shelf, "--method", "nmc,ensemble-selection,e_leep", "--sets", 2)
    document = fits(shell(*asked, "--json"), "rank")
    chosen, by_head = document["sets"]
    assert (chosen["method"], by_head["method"]) == ("ensemble_selection", "e_leep")
    assert {m["name"] for m in chosen["members"]} <= {"one", "other"}
    assert chosen["best"] == {k: document["sources"][0][k] for k in ("id", "name")}
    assert chosen["gain"]["low"] <= chosen["gain"]["value"] <= chosen["gain"]["high"]
    assert [m["name"] for m in by_head["members"]] == ["other"]
    assert [(s["name"], "gives features" in s["error"]) for s in by_head["left_out"]] == [("one", True)]
    told = shell(*asked, "--exhaustive")
    assert "set by ensemble_selection" in told.out
    assert "`e_leep` cannot judge `one`" in told.err
    assert by_head["best"]["name"] == "one"
    assert "no source adds to `other`\nover `one`, whose probe is best: " in told.out


def test_rank_with_sets_and_what_sources_learned_from(
    shell: Shell, models: Path, ticket_file: Path, tmp_path: Path
) -> None:
    shelf, learned = tmp_path / "two", tmp_path / "learned"
    for seed, name in enumerate(("mails", "chats")):
        tiny_models.save_model(shelf / name, "bert", num_hidden_layers=1, seed=seed, head=True)
    learned.mkdir()
    rows = [[f"the {('cat', 'dog')[i % 2]} sat on mat {i}", ("low", "mid", "high")[i % 3]] for i in range(60)]
    table(learned / "mails.csv", ("text", "label"), rows)
    (learned / "broken.csv").write_bytes(b"")
    asked = ("rank", ticket_file, "--sources", shelf, "--method", "nmc,osborn", "--sets", 2)
    plain, with_rows = (shell(*asked, *more, "--json") for more in ((), ("--datasets", learned)))
    (found,) = fits(with_rows, "rank")["sets"]
    assert {o["name"]: (o["rows"], o["reason"]) for o in found["own_rows"]} == {
        "mails": (60, None),
        "chats": (None, "no data set is called so"),
    }
    assert "data set `broken.csv` is left out" in with_rows.err
    (without,) = fits(plain, "rank")["sets"]
    assert {o["reason"] for o in without["own_rows"]} == {"no data sets were given"}
    assert found["members"] != without["members"], "the term is another one"

    told = shell(*asked, "--datasets", learned)
    assert told.code == 0
    assert "`osborn` saw rows that sources learned from, of `mails` (60)" in told.err
    assert "`osborn` saw no rows that `chats` learned from: no data set is called so; call its file `chats`" in told.err
    refused = shell("rank", ticket_file, "--sources", shelf, "--sets", 2, "--datasets", learned)
    assert refused.code == 1
    assert "choose sets by consistency_diversity or osborn" in refused.err
    (tmp_path / "empty").mkdir()
    assert "it holds no data set" in shell(*asked, "--datasets", tmp_path / "empty").err


@pytest.mark.parametrize(
    ("words", "code", "kind"),
    [
        (("inspect", "nothing.csv"), 1, "Unreadable"),
        (("inspect",), 2, "Usage"),
        (("inspct",), 2, "Usage"),
        (("inspect", "x.csv", "--taks", "y"), 2, "Usage"),
        (("inspect", "x.csv", "--task", "regresion"), 2, "Usage"),
        (("solve", "x.csv", "--out", "o", "--minutes", "ten"), 2, "Usage"),
        (("solve", "x.csv", "--out", "o", "--minutes", "0"), 1, "Unfit"),
        (("solve", "x.csv", "--out", "o", "--memory", "much"), 1, "Unfit"),
        (("rank", "x.csv", "--sets", "1"), 2, "Usage"),
        (("rank", "x.csv", "--method", "osborn"), 1, "Unfit"),
        (("rank", "x.csv", "--exhaustive"), 1, "Unfit"),
        (("predict", "nothing", "x.csv"), 1, "Unreadable"),
        (("report", "nothing"), 1, "Unreadable"),
        (("methods", "adaptaton"), 1, "Unfit"),
        (("inventory", "show", "nobody"), 1, "Unfit"),
        (("inventory", "convert", "nothing"), 1, "Unreadable"),
        (("inventory", "lst"), 2, "Usage"),
    ],
)
def test_an_error_is_a_document_too(shell: Shell, words: tuple[str, ...], code: int, kind: str) -> None:
    said = shell(*words, "--json")
    error = fits(said, "error")["error"]
    assert (said.code, error["class"], said.err) == (code, kind, "")
    assert not error["what"].endswith(".")
    assert "\n" not in "".join(error.values())
