"""Recipes that read rows: the same merge as the command of the same words, and numbers that are searched."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import headstart as hs
from headstart.combination.merging import carried_out, merge, merge_recipe, planned_recipe, with_rows
from headstart.core import Budget, Problem, Refused, Target, Unfit
from headstart.io import places
from headstart.io.load_check import checked
from headstart.numerics.blind_search import minimised
from tiny_models import WORDS
from tuned_models import LABELS, Family


def target(family: Family, task: str) -> Target:
    return hs.read_target(family.tables[task]["valid"], label="label", test=family.tables[task]["test"], name=task)


def write(folder: Path, document: Any) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return path


def weights(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.safetensors"))}


METHODS: list[tuple[str, dict[str, Any]]] = [
    ("regmean", {"shrink": 0.8}),
    ("adamerging", {"steps": 3}),
    ("evolve", {"merge": "ties", "search": [["density", 0.1, 1.0], ["scale", 0.2, 2.0]], "trials": 2}),
    ("twin_merge", {"steps": 5}),
]


@pytest.mark.parametrize(("method", "settings"), METHODS, ids=[m for m, _ in METHODS])
def test_a_recipe_that_reads_rows_makes_what_the_command_makes(
    method: str, settings: dict[str, Any], tuned: Family, tmp_path: Path
) -> None:
    said = {"method": method, "models": [str(m) for m in tuned.models.values()], "base": str(tuned.base)}
    heads = {} if method == "twin_merge" else {"heads": "separate"}
    recipe = write(tmp_path, {**said, **heads, "settings": settings, "seed": 3})
    targets = {task: target(tuned, task) for task in tuned.models}
    by_recipe = merge_recipe(recipe, out=tmp_path / "a", targets=targets)
    plain = {k: tuple(map(tuple, v)) if k == "search" else v for k, v in settings.items()}
    by_call = merge(
        said["models"], method, base=tuned.base, settings=plain, seed=3, targets=targets, out=tmp_path / "b", **heads
    )  # fmt: skip
    assert by_recipe.plan.method == by_call.plan.method == method
    assert weights(by_recipe.where) == weights(by_call.where)


def test_what_a_recipe_of_rows_lacks_is_told(tuned: Family, tmp_path: Path) -> None:
    said = {"method": "regmean", "models": [str(m) for m in tuned.models.values()], "heads": "separate"}
    with pytest.raises(Refused, match="`regmean` reads rows, and none are named"):
        merge_recipe(write(tmp_path, said), out=tmp_path / "out")
    ruled = {**said, "rules": [{"tensors": ["*"], "method": "linear"}]}
    with pytest.raises(Refused, match="reads rows and makes all tensors itself"):
        planned_recipe(write(tmp_path, ruled))
    with pytest.raises(Refused, match="keeps parts of the models apart, and their heads with them"):
        planned_recipe(write(tmp_path, {**said, "base": str(tuned.base), "method": "surgery", "heads": "average"}))
    within = {**said, "method": "linear", "rules": [{"tensors": ["*"], "method": "regmean"}]}
    with pytest.raises(Refused, match="which a rule, a slice or another merge cannot give it"):
        planned_recipe(write(tmp_path, within))
    assert not (tmp_path / "out").exists()


# -- numbers that are searched -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tuned: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two models of one task, one of them worse: `good`, and `bad` with noise on its weights."""
    folder = tmp_path_factory.mktemp("pair")
    draw = torch.Generator().manual_seed(0)
    for name in ("good", "bad"):
        shutil.copytree(tuned.models["animals"], folder / name)
    held = load_file(folder / "good" / "model.safetensors")
    noisy = {n: w + 0.3 * w.std() * torch.randn(w.shape, generator=draw) if w.dim() > 1 else w for n, w in held.items()}
    save_file(noisy, folder / "bad" / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def loss_by_transformers(
    folder: Path, weights: Mapping[str, torch.Tensor] | None, rows: Target, labels: Sequence[str] = LABELS["animals"]
) -> float:
    """Mean cross-entropy of a model, or of its class with other weights, on the labelled rows of a target."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    if weights is not None:
        model.load_state_dict(dict(weights), strict=False)
    texts = rows.labelled.inputs.column("text").to_pylist()
    columns = [labels.index(c) for c in rows.task.classes]
    with torch.inference_mode():
        given = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
        logits = model(**given).logits[:, columns]
    return float(torch.nn.functional.cross_entropy(logits, torch.tensor(rows.labelled.labels)))


def found(made: Any) -> dict[str, Any]:
    """What the receipt in the folder says of the search."""
    said: dict[str, Any] = json.loads((made.where / "merge.json").read_text())["facts"]["learned"]["searched"]
    return said


def test_every_trial_is_the_merge_by_hand_and_the_best_is_written(tuned: Family, pair: Path, tmp_path: Path) -> None:
    rows = target(tuned, "animals")
    document = {
        "merge_method": "linear",
        "models": [
            {"model": m, "parameters": {"weight": [{"filter": "layer.1.", "value": {"search": [0, 2], "start": s}}, 1]}}
            for m, s in (("good", 0.5), ("bad", 1.5))
        ],
        "parameters": {"normalize": True},
    }  # fmt: skip
    for model in document["models"]:
        model["parameters"]["weight"][1] = {"value": {"search": [0.1, 1]}}
    made = merge_recipe(write(pair, document), out=tmp_path / "out", targets=[rows], budget=Budget(trials=6))
    said = found(made)
    names = [f"models.{m}.parameters.weight.{i}.value" for m in (0, 1) for i in (0, 1)]
    assert [r["name"] for r in said["ranges"]] == names
    assert said["made_in"] == "memory"
    assert list(said["trials"][0]["values"].values()) == [0.5, 0.55, 1.5, 0.55]
    good, bad = (load_file(pair / m / "model.safetensors") for m in ("good", "bad"))

    def by_hand(values: dict[str, float]) -> dict[str, torch.Tensor]:
        of_layer, others = [[values[names[i]], values[names[i + 2]]] for i in (0, 1)]
        shares = {n: (of_layer if "layer.1." in n else others) for n in good}
        return {n: (s[0] * good[n] + s[1] * bad[n]) / sum(s) for n, s in shares.items()}

    assert len(said["trials"]) == 6
    for trial in said["trials"]:
        assert all(r["low"] <= trial["values"][r["name"]] <= r["high"] for r in said["ranges"])
        assert trial["loss"] == pytest.approx(
            loss_by_transformers(pair / "good", by_hand(trial["values"]), rows), abs=1e-5
        )
    best = min(said["trials"], key=lambda t: t["loss"])
    assert said["values"] == best["values"]
    assert best["loss"] < said["trials"][0]["loss"]
    for name, weight in load_file(made.where / "model.safetensors").items():
        torch.testing.assert_close(weight, by_hand(best["values"])[name])
    assert loss_by_transformers(made.where, None, rows) == pytest.approx(best["loss"], abs=1e-5)


RANGE = {"search": [0.2, 1.2]}
ONE = {"merge_method": "linear", "models": [{"model": "good", "parameters": {"weight": 1}}]}
SEARCHED: dict[str, Any] = {  # each with how its trials are made
    "own": ({"method": "linear", "models": ["good", "bad"], "settings": {"weights": [RANGE, 0.5]}}, "memory"),
    "rules": (
        {
            "method": "task_arithmetic", "models": ["good", "bad"], "base": "bad", "seed": 2,
            "settings": {"scale": RANGE}, "rules": [{"tensors": ["*attention*"], "settings": {"scale": RANGE}}],
        },
        "memory",
    ),
    "slices": (
        {"slices": [{"model": "good", "layers": [0, 2], "scale": RANGE}, {"model": "bad", "layers": [1, 2]}]},
        "folders",
    ),
    "slices as many": (
        {
            "slices": [
                {"model": "good", "layers": [0, 1]},
                {"models": ["good", "bad"], "layers": [1, 2], "method": "linear", "settings": {"weights": [RANGE, 1]}},
            ]
        },
        "memory",
    ),
    "gradients": (
        {
            "merge_method": "slerp", "base_model": "good", "parameters": {"t": [0, RANGE]},
            "slices": [
                {
                    "sources": [{"model": m, "layer_range": [0, 2]} for m in ("good", "bad")],
                    "parameters": {"t": [{"filter": "mlp", "value": [RANGE, 1]}, {"value": RANGE}]},
                }
            ],
        },
        "memory",
    ),
    "several documents": (
        [
            {**ONE, "name": "first"},
            {
                "merge_method": "linear",
                "models": [{"model": m, "parameters": {"weight": w}} for m, w in (("first", 1), ("bad", RANGE))],
            },
        ],
        "folders",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(SEARCHED))
def test_any_recipe_is_searched_and_is_made_again_without_rows(
    name: str, tuned: Family, pair: Path, tmp_path: Path, home: Path
) -> None:
    document, made_in = SEARCHED[name]
    text = yaml.safe_dump_all(document) if isinstance(document, list) else yaml.safe_dump(document)
    recipe = write(pair, text.replace("&id001", "").replace("*id001", "{search: [0.2, 1.2]}"))
    rows = target(tuned, "animals")
    made = merge_recipe(recipe, out=tmp_path / "out", targets=[rows], budget=Budget(trials=4))
    said = found(made)
    assert said["made_in"] == made_in
    assert len(said["trials"]) == 4
    best = min(said["trials"], key=lambda t: t["loss"])
    assert loss_by_transformers(made.where, None, rows) == pytest.approx(best["loss"], abs=1e-5)
    again = merge_recipe(made.where / "recipe.yaml", out=tmp_path / "again")
    assert weights(again.where) == weights(made.where)
    assert again.plan.method == made.plan.method
    twice = merge_recipe(recipe, out=tmp_path / "twice", targets=[rows], budget=Budget(trials=4))
    assert found(twice)["trials"] == said["trials"]
    assert weights(twice.where) == weights(made.where)
    assert not list(places.cache_folder().parent.glob("trials-*"))


def test_tasks_with_heads_of_their_own_are_searched_together(tuned: Family, tmp_path: Path) -> None:
    said = {
        "method": "ties", "models": [str(m) for m in tuned.models.values()], "base": str(tuned.base),
        "heads": "separate", "settings": {"density": {"search": [0.1, 1.0]}, "scale": {"search": [0.2, 2.0]}},
    }  # fmt: skip
    targets = {task: target(tuned, task) for task in tuned.models}
    made = merge_recipe(write(tmp_path, said), out=tmp_path / "out", targets=targets, budget=Budget(trials=5))
    again = merge_recipe(made.where / "recipe.yaml", out=tmp_path / "again")
    assert weights(again.where) == weights(made.where)
    by_hand = merge(
        said["models"], "ties", base=tuned.base, heads="separate", out=tmp_path / "hand",
        settings={k.removeprefix("settings."): v for k, v in found(made)["values"].items()},
    )  # fmt: skip
    assert weights(by_hand.where) == weights(made.where)
    trials = found(made)["trials"]
    assert min(t["loss"] for t in trials) < trials[0]["loss"]


def test_what_is_written_to_be_tried_may_have_heads_apart(tuned: Family, pair: Path, tmp_path: Path) -> None:
    """A vocabulary of both is not the one that the model in memory has."""
    for name, task in (("one", "animals"), ("two", "places")):
        shutil.copytree(tuned.models[task], tmp_path / name)
    said = json.loads((tmp_path / "two" / "tokenizer.json").read_text())
    said["model"]["vocab"]["zebra"] = said["model"]["vocab"].pop(WORDS[0])
    (tmp_path / "two" / "tokenizer.json").write_text(json.dumps(said))
    recipe = {
        "method": "task_arithmetic", "models": ["one", "two"], "base": str(tuned.base), "heads": "separate",
        "vocabulary": "union", "settings": {"weights": [{"search": [0, 1]}, {"search": [0, 1]}]},
    }  # fmt: skip
    rows = {"one": target(tuned, "animals"), "two": target(tuned, "places")}
    made = merge_recipe(write(tmp_path, recipe), out=tmp_path / "out", targets=rows, budget=Budget(trials=3))
    assert found(made)["made_in"] == "folders"
    losses = [
        loss_by_transformers(made.where / name, None, rows[name], LABELS[task])
        for name, task in (("one", "animals"), ("two", "places"))
    ]
    best = min(t["loss"] for t in found(made)["trials"])
    assert sum(losses) / 2 == pytest.approx(best, abs=1e-5)
    again = merge_recipe(made.where / "recipe.yaml", out=tmp_path / "again")
    assert weights(again.where) == weights(made.where)


def test_a_document_of_mergekit_that_draws_says_its_seed(tuned: Family, pair: Path, tmp_path: Path) -> None:
    document = {
        "merge_method": "dare_ties", "base_model": "bad", "parameters": {"lambda": RANGE},
        "models": [{"model": "good", "parameters": {"weight": RANGE, "density": RANGE | {"search": [0.3, 0.9]}}}],
    }  # fmt: skip
    rows = target(tuned, "animals")
    recipe = write(pair, document)
    made = merge_recipe(recipe, out=tmp_path / "out", targets=[rows], budget=Budget(trials=4), seed=3)
    best = min(t["loss"] for t in found(made)["trials"])
    assert loss_by_transformers(made.where, None, rows) == pytest.approx(best, abs=1e-5)
    assert "merge it with --seed 3\n" in (made.where / "recipe.yaml").read_text()
    again = merge_recipe(made.where / "recipe.yaml", out=tmp_path / "again", seed=3)
    assert weights(again.where) == weights(made.where)
    other = merge_recipe(made.where / "recipe.yaml", out=tmp_path / "other")
    assert weights(other.where) != weights(made.where)


def test_an_alias_is_the_same_number(tuned: Family, pair: Path, tmp_path: Path) -> None:
    text = "method: linear\nmodels: [good, bad]\nsettings: {weights: [&w {search: [0.2, 1.2]}, *w]}\n"
    plan = planned_recipe(write(pair, text))
    assert plan.search is not None
    assert [r.name for r in plan.search.ranges] == ["settings.weights.0"]
    assert plan.search.planned({"settings.weights.0": 0.3}).settings["weights"] == [0.3, 0.3]


def test_without_a_limit_sixty_are_tried_and_without_time_the_start_alone(
    tuned: Family, pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int | None] = []

    def seen(cost: Any, space: Any, start: Any, trials: int | None, seed: int, more: Any) -> Any:
        asked.append(trials)
        return minimised(cost, space, start, min(trials or 3, 3), seed, more)

    monkeypatch.setattr("headstart.numerics.blind_search.minimised", seen)
    plan = planned_recipe(write(pair, SEARCHED["own"][0]))
    rows = [target(tuned, "animals")]
    assert len(with_rows(plan, rows).learned["searched"]["trials"]) == 4
    late = with_rows(plan, rows, budget=Budget(minutes=1), started=time.monotonic() - 100)
    assert len(late.learned["searched"]["trials"]) == 1
    assert late.learned["searched"]["values"] == {"settings.weights.0": 0.7}
    assert asked == [59, None]


def test_numbers_that_a_method_does_not_take_together_are_told(tuned: Family, pair: Path, tmp_path: Path) -> None:
    said = {
        "method": "breadcrumbs", "models": ["good"], "base": "bad", "seed": 1,
        "settings": {"density": {"search": [0.1, 1.0], "start": 0.5}, "outliers": {"search": [0.0, 1.0], "start": 0.4}},
    }  # fmt: skip
    made = merge_recipe(
        write(pair, said), out=tmp_path / "out", targets=[target(tuned, "animals")], budget=Budget(trials=8)
    )
    refused = [t for t in found(made)["trials"] if "refused" in t]
    assert refused
    assert all(sum(t["values"].values()) > 1 for t in refused)
    assert sum(found(made)["values"].values()) <= 1
    settings = {"density": {"search": [0.6, 1.0]}, "outliers": {"search": [0.5, 1.0]}}
    with pytest.raises(Unfit, match="together at most 1"):
        planned_recipe(write(pair, {**said, "settings": settings}))


@pytest.mark.parametrize("name", ["own", "slices"])
def test_ctrl_c_ends_a_search_with_the_best_so_far(name: str, tuned: Family, pair: Path, tmp_path: Path) -> None:
    def third(trial: str, best: str) -> None:
        if trial == "trial 3":
            signal.raise_signal(signal.SIGINT)

    recipe, rows = write(pair, SEARCHED[name][0]), target(tuned, "animals")
    plan = with_rows(planned_recipe(recipe), [rows], tell=third)
    made = carried_out(plan, tmp_path / "out")
    bounded = merge_recipe(recipe, out=tmp_path / "bounded", targets=[rows], budget=Budget(trials=3))
    told, other = found(made), found(bounded)
    assert (told["stopped"], other["stopped"]) == ("interrupt", None)
    assert [t["values"] for t in told["trials"]] == [t["values"] for t in other["trials"]]
    assert [t["loss"] for t in told["trials"]] == pytest.approx([t["loss"] for t in other["trials"]])
    assert told["values"] == min(told["trials"], key=lambda t: float(t["loss"]))["values"] == other["values"]
    again = merge_recipe(made.where / "recipe.yaml", out=tmp_path / "again")
    same = weights(again.where) == weights(made.where), weights(bounded.where) == weights(made.where)
    assert same == (True, True)  # apart, as pytest takes minutes to tell two files apart
    assert not list(places.cache_folder().parent.glob("trials-*"))


def test_ctrl_c_before_anything_was_tried_finds_nothing(
    tuned: Family, pair: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first(*_: Any) -> Any:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("headstart.numerics.learning.judged", first)
    with pytest.raises(KeyboardInterrupt):
        with_rows(planned_recipe(write(pair, SEARCHED["own"][0])), [target(tuned, "animals")])


def test_of_trials_on_the_disk_the_first_alone_is_held_against_its_class(
    tuned: Family, pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def counted(config: Any, *said: Any) -> Any:
        seen.append(config["model_type"])
        return checked(config, *said)

    monkeypatch.setattr("headstart.io.load_check.checked", counted)
    recipe, rows = write(pair, SEARCHED["slices"][0]), target(tuned, "animals")
    counts = []
    for trials in (1, 4):
        seen.clear()
        merge_recipe(recipe, out=tmp_path / f"{trials}", targets=[rows], budget=Budget(trials=trials))
        counts.append(len(seen))
    assert counts[0] == counts[1] > 0


WRONG: list[tuple[type[Problem], dict[str, Any], str]] = [
    (Unfit, {"settings": {"weights": [{"search": [1, 0]}, 1]}}, "the range from 1 to 0 holds no number"),
    (Unfit, {"settings": {"weights": [{"search": [0, 1], "start": 2}, 1]}}, "the start 2 does not lie between 0 and 1"),
    (Unfit, {"settings": {"weights": [{"search": [0, 1, 2]}, 1]}}, "are not the lowest and the highest number"),
    (Unfit, {"settings": {"weights": [{"search": ["a", 1]}, 1]}}, "a range is of numbers"),
    (Unfit, {"settings": {"weights": [{"search": [0, 1], "log": True}, 1]}}, "`log` is no key of a range"),
    (Unfit, {"settings": {"weights": [{"search": [0, float("inf")]}, 1]}}, "holds no number"),
    (Unfit, {"settings": {"weights": [{"search": [0, 10**400]}, 1]}}, "a range is of numbers"),
    (Unfit, {"settings": {"weights": {"search": [0, 1]}}}, "takes a list"),
    (Unfit, {"settings": {"normalize": {"search": [0, 1]}}}, "takes true or false"),
    (Unfit, {"seed": {"search": [0, 5]}}, "seed"),
    (Refused, {"method": "learned_soup", "settings": {"learning_rate": {"search": [0.1, 1]}}}, "learns from rows"),
]  # fmt: skip


@pytest.mark.parametrize(("problem", "said", "answer"), WRONG, ids=[a[:40] for _, _, a in WRONG])
def test_wrong_ranges_are_answered(problem: type[Problem], said: dict[str, Any], answer: str, pair: Path) -> None:
    with pytest.raises(problem) as caught:
        planned_recipe(write(pair, {"method": "linear", "models": ["good", "bad"], **said}))
    assert answer in str(caught.value), str(caught.value)


def test_ranges_without_rows_are_refused_with_the_fix(pair: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        merge_recipe(write(pair, SEARCHED["own"][0]), out=tmp_path / "out")
    assert "1 number of the recipe, `settings.weights.0` first, is to be found on rows" in str(caught.value)
    assert "--target FILE" in str(caught.value)
    assert not (tmp_path / "out").exists()
