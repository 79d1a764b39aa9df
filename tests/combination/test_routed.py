"""Merges with parts that stay apart, on real models: what they write and how it predicts, against transformers."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import headstart as hs
from headstart.combination.deltas import apply
from headstart.combination.entrants import entrants
from headstart.combination.forecasts import forecast
from headstart.combination.merging import kind_of, merge, planned, tasks_of, with_rows
from headstart.combination.routing.twin_merge import TwinMerge
from headstart.core import Problem, Refused, Target, Unfit
from headstart.inspection import read_unlabelled
from headstart.io import deltas
from headstart.io.routed import RoutedModel
from tuned_models import GROUPS, LABELS, Family


@pytest.fixture(scope="module")
def tables(tuned: Family, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Rows of each task that only hold words of its own, so that their task can be told."""
    folder, out = tmp_path_factory.mktemp("own-words"), {}
    for task, path in tuned.tables.items():
        own = {w for group in GROUPS[task] for w in group}
        with path["train"].open() as file:
            _, *rows = csv.reader(file)
        kept = [(" ".join(w for w in text.split() if w in own), label) for text, label in rows]
        out[task] = folder / f"{task}.csv"
        with out[task].open("w", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *[r for r in kept if r[0]]])
    return out


@pytest.fixture(scope="module")
def targets(tables: dict[str, Path]) -> dict[str, Target]:
    return {task: hs.read_target(path, label="label", name=task) for task, path in tables.items()}


Make = Callable[..., Path]


@pytest.fixture(scope="module")
def make(tuned: Family, targets: dict[str, Target], tmp_path_factory: pytest.TempPathFactory) -> Make:
    def made(method: str = "twin_merge", rows: bool = True, dtype: str | None = None, **settings: Any) -> Path:
        out = tmp_path_factory.mktemp("routed") / "out"
        merge(
            list(tuned.models.values()), method, base=tuned.base, out=out, settings=settings, dtype=dtype,
            targets=targets if rows else (),
        )  # fmt: skip
        return out

    return made


@pytest.fixture(scope="module")
def twin(make: Make) -> Path:
    return make(keep=0.2)


def texts(path: Path) -> list[str]:
    with path.open() as file:
        return [row[0] for row in csv.reader(file)][1:]


def theirs(folder: Path, rows: list[str]) -> torch.Tensor:
    """Probabilities by transformers."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        out = model(**AutoTokenizer.from_pretrained(folder)(rows, padding=True, return_tensors="pt"))
    return torch.softmax(out.logits.double(), 1)


def ours(folder: Path, rows: list[str], task: str | None) -> np.ndarray:  # type: ignore[type-arg]
    """Probabilities of one task's labels."""
    (answer,) = RoutedModel(folder).predict(read_unlabelled(rows).inputs, task)
    assert answer.rows.tolist() == list(range(len(rows)))
    return answer.values


def test_all_that_is_exclusive_predicts_as_the_models_do(tuned: Family, make: Make) -> None:
    out = make(keep=1.0, steps=5)
    for task, model in tuned.models.items():
        rows = texts(tuned.tables[task]["test"])[:40]
        np.testing.assert_allclose(ours(out, rows, task), theirs(model, rows), atol=1e-5)


def test_nothing_kept_predicts_as_the_shared_body(tuned: Family, make: Make) -> None:
    out = make(keep=0.0, steps=5)
    assert not list((out / "routing").glob("expert*"))
    for task in tuned.models:
        rows = texts(tuned.tables[task]["test"])[:40]
        np.testing.assert_allclose(ours(out, rows, task), theirs(out / task, rows), atol=1e-5)


def test_an_expert_is_a_delta_to_the_model_beside_it(tuned: Family, twin: Path, tmp_path: Path) -> None:
    made = apply(twin / "routing" / "expert-00002.safetensors", twin / "places", out=tmp_path / "places")
    rows = texts(tuned.tables["places"]["test"])[:40]
    np.testing.assert_allclose(ours(twin, rows, "places"), theirs(made, rows), atol=1e-5)


def test_experts_are_better_than_the_body_alone(tuned: Family, twin: Path) -> None:
    def right(table: Any, task: str) -> float:
        with tuned.tables[task]["test"].open() as file:
            labels = [row[1] for row in csv.reader(file)][1:]
        return float(np.mean([LABELS[task][i] == y for i, y in zip(table.argmax(1).tolist(), labels, strict=True)]))

    for task in tuned.models:
        rows = texts(tuned.tables[task]["test"])
        own, shared = right(theirs(tuned.models[task], rows), task), right(theirs(twin / task, rows), task)
        with_expert = right(ours(twin, rows, task), task)
        assert with_expert >= own - 0.03
        assert with_expert >= shared


def test_rows_find_their_experts(tuned: Family, tables: dict[str, Path], twin: Path) -> None:
    loaded = hs.load(twin)
    mixed = [(task, text) for task, path in tables.items() for text in texts(path)[:50]]
    found = loaded.predict([text for _, text in mixed])
    assert np.mean([t == task for t, (task, _) in zip(found.tasks, mixed, strict=True)]) > 0.95
    assert found.classes == ("calm", "wild", "near", "far", "past", "present")
    named = {task: hs.load(twin, task=task) for task in tuned.models}
    for at in (3, 70, 120):
        task, text = mixed[at]
        if found.tasks[at] == task:
            alone = named[task].predict([text])
            np.testing.assert_allclose(alone.probabilities[0], found.probabilities[at], atol=1e-5)
            assert sum(found.probabilities[at]) == pytest.approx(1)


def test_a_router_that_cannot_tell_says_so(tuned: Family, tmp_path: Path) -> None:
    """Texts of all words, whatever the task: nothing in them tells the three apart."""
    alike = {t: hs.read_target(p["valid"], label="label", name=t) for t, p in tuned.tables.items()}
    models = list(tuned.models.values())
    made = merge(models, "twin_merge", base=tuned.base, out=tmp_path / "out", settings={"keep": 0.0}, targets=alike)
    assert made.receipt.facts["learned"]["router"]["accuracy"] < 0.6
    assert any("the router names the right task for" in w for w in made.receipt.warnings)


def test_a_row_is_predicted_alike_alone_and_among_others(tables: dict[str, Path], make: Make) -> None:
    out = make(keep=0.2, top=3, steps=20)
    model = RoutedModel(out)
    rows = [text for path in tables.values() for text in texts(path)[:4]]
    classes = [label for head in model.heads for label in head.labels]
    together, _ = model.table(read_unlabelled(rows).inputs, classes)
    alone = np.concatenate([model.table(read_unlabelled([r]).inputs, classes)[0] for r in rows])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_mixed_experts_are_mixed_weights(twin: Path) -> None:
    model = RoutedModel(twin)
    shared = model.placed(0, [0.0, 0.0, 0.0])
    assert set(shared) == set(model.parts.manifest.tasks[0].head)
    each = [model.placed(0, one) for one in np.eye(3).tolist()]
    mixed = model.placed(0, [0.5, 0.2, 0.3])
    own = dict(model._whole.module.named_parameters())
    for name in set(mixed) - set(shared):
        changes = [one.get(name, own[name]) - own[name] for one in each]
        wanted = own[name] + sum(w * c for w, c in zip((0.5, 0.2, 0.3), changes, strict=True))
        torch.testing.assert_close(mixed[name], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["onebit_merge", "emr", "tall_mask"])
def test_small_parts_predict_nearly_as_the_models_do(tuned: Family, make: Make, method: str) -> None:
    """Without rows: the caller names the task. What these models know lies in their embeddings, too."""
    out = make(method, rows=False, **({"merged": ()} if method == "onebit_merge" else {}))
    with pytest.raises(Refused, match="has learned no router"):
        hs.load(out)
    for task, model in tuned.models.items():
        rows = texts(tuned.tables[task]["test"])
        same = ours(out, rows, task).argmax(1) == theirs(model, rows).argmax(1).numpy()
        assert same.mean() > 0.8
        assert same.mean() > (theirs(out / task, rows).argmax(1) == theirs(model, rows).argmax(1)).float().mean()
    told = json.loads((out / "merge.json").read_text())["facts"]["storage"]
    assert told["router"] == 0
    assert told["share"] < 1


@pytest.fixture(scope="module")
def three(make: Make) -> dict[str, Path]:
    """What needs something between the layers, or a head once more."""
    return {
        "surgery": make("surgery", steps=400, learning_rate=0.01, rank=8),
        "tint": make("tint", steps=12, learning_rate=0.03),
        "wemoe": make("wemoe", steps=12, learning_rate=0.03),
    }


@pytest.mark.parametrize("method", ["surgery", "tint"])
def test_what_is_learned_brings_a_task_nearer_to_its_model(tuned: Family, three: dict[str, Path], method: str) -> None:
    out = three[method]
    apart, before = [], []
    for task, model in tuned.models.items():
        rows = texts(tuned.tables[task]["test"])
        own, alone = theirs(model, rows), theirs(out / task, rows)
        found = torch.from_numpy(ours(out, rows, task))
        apart.append(float((found - own).abs().mean()))
        before.append(float((alone - own).abs().mean()))
    assert np.mean(apart) < np.mean(before)


def test_gates_make_predictions_surer(tuned: Family, three: dict[str, Path]) -> None:
    """That is what they are learned by."""
    found, before = [], []
    for task in tuned.models:
        rows = texts(tuned.tables[task]["test"])
        for table, into in (
            (torch.from_numpy(ours(three["wemoe"], rows, task)), found),
            (theirs(three["wemoe"] / task, rows), before),
        ):
            into.append(float(torch.special.entr(table).sum(1).mean()))
    assert np.mean(found) < np.mean(before)


def test_a_correction_is_what_its_tensors_say(tuned: Family, three: dict[str, Path]) -> None:
    """By transformers and the formula of the paper."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    out = three["surgery"]
    held = load_file(out / "routing" / "inserts.safetensors")
    for number, task in enumerate(tuned.models):
        model = AutoModelForSequenceClassification.from_pretrained(out / task).eval()
        rows = texts(tuned.tables[task]["test"])[:30]
        given = AutoTokenizer.from_pretrained(out / task)(rows, padding=True, return_tensors="pt")
        with torch.inference_mode():
            z = model.bert(**given).pooler_output
            z = z - torch.relu(z @ held[f"task.{number}.down"].T) @ held[f"task.{number}.up"].T
            wanted = torch.softmax(model.classifier(z).double(), 1)
        np.testing.assert_allclose(ours(out, rows, task), wanted, atol=1e-5)


def test_a_tinted_head_is_a_delta_to_the_model_beside_it(tuned: Family, three: dict[str, Path], tmp_path: Path) -> None:
    out = three["tint"]
    for number, task in enumerate(tuned.models):
        made = apply(out / "routing" / f"expert-{number + 1:05d}.safetensors", out / task, out=tmp_path / task)
        rows = texts(tuned.tables[task]["test"])[:40]
        np.testing.assert_allclose(ours(out, rows, task), theirs(made, rows), atol=1e-5)
        assert set(deltas.read(out / "routing" / f"expert-{number + 1:05d}.safetensors").changes) == {
            "classifier.weight",
            "classifier.bias",
        }


def test_gates_are_one_merge_of_the_blocks_for_each_row(tuned: Family, three: dict[str, Path]) -> None:
    """Row by row: gates from what goes into each block, and then weights merged by them, by transformers alone."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    out, task = three["wemoe"], "places"
    said = json.loads((out / "routing" / "routing.json").read_text())
    held = load_file(out / "routing" / "inserts.safetensors")
    assert [n for block in said["blocks"] for n in block if n.endswith("weight")] == [
        f"bert.encoder.layer.{layer}.{part}.dense.weight" for layer in range(2) for part in ("intermediate", "output")
    ]
    base = load_file(tuned.base / "model.safetensors")
    each = [load_file(f / "model.safetensors") for f in tuned.models.values()]
    tokenizer = AutoTokenizer.from_pretrained(out / task)
    for row in texts(tuned.tables[task]["test"])[:5]:
        model = AutoModelForSequenceClassification.from_pretrained(out / task).eval()

        def merge_for_it(module: Any, given: tuple[torch.Tensor, ...], number: int = 0, model: Any = model) -> None:
            del module
            first, bias, second, last = (held[f"gates.{number}.{i}.{p}"] for i in range(2) for p in ("weight", "bias"))
            gates = (torch.relu(given[0] @ first.T + bias) @ second.T + last).mean((0, 1))
            for name in said["blocks"][number]:
                change = sum(g * (one[name] - base[name]) for g, one in zip(gates, each, strict=True))
                model.get_parameter(name).data += change

        for number, layer in enumerate(model.bert.encoder.layer):
            hook = lambda m, x, number=number: merge_for_it(m, x, number)  # noqa: E731
            layer.intermediate.dense.register_forward_pre_hook(hook)
        with torch.no_grad():
            logits = model(**tokenizer([row], return_tensors="pt")).logits
        np.testing.assert_allclose(ours(out, [row], task), torch.softmax(logits.double(), 1), atol=1e-5)


@pytest.mark.parametrize("method", ["surgery", "tint", "wemoe"])
def test_rows_among_others_find_their_heads(tables: dict[str, Path], three: dict[str, Path], method: str) -> None:
    model = RoutedModel(three[method])
    mixed = [(task, text) for task, path in tables.items() for text in texts(path)[:20]]
    classes = [label for head in model.heads for label in head.labels]
    together, tasks = model.table(read_unlabelled([text for _, text in mixed]).inputs, classes)
    assert np.mean([t == task for t, (task, _) in zip(tasks, mixed, strict=True)]) > 0.9
    alone = np.concatenate([model.table(read_unlabelled([text]).inputs, classes)[0] for _, text in mixed[::7]])
    np.testing.assert_allclose(together[::7], alone, atol=1e-5)


@pytest.mark.parametrize("method", ["surgery", "tint", "wemoe"])
def test_what_they_store_is_told(three: dict[str, Path], method: str) -> None:
    told = json.loads((three[method] / "merge.json").read_text())["facts"]["storage"]
    held = three[method] / "routing" / "inserts.safetensors"
    inserts = sum(t.numel() * t.element_size() for t in load_file(held).values()) if held.exists() else 0
    assert told["inserts"] == inserts
    assert held.exists() == (method != "tint")
    assert (told["experts"] > 0) == (method != "surgery")


def test_a_mask_picks_of_the_common_change(tuned: Family, make: Make) -> None:
    """Weights of a task, from the files alone and the formula of the paper."""
    model = RoutedModel(make("tall_mask", rows=False))
    each = [load_file(f / "model.safetensors") for f in tuned.models.values()]
    base = load_file(tuned.base / "model.safetensors")
    name = "bert.encoder.layer.1.output.dense.weight"
    changes = [one[name].double() - base[name].double() for one in each]
    total = torch.stack(changes).sum(0)
    mask = changes[2].abs() > 0.4 * (total - changes[2]).abs()
    found = model.placed(2, [0.0, 0.0, 1.0])[name].double()
    wanted = base[name].double() + mask * total
    assert float((found - wanted).abs().gt(1e-6).double().mean()) < 1e-3  # but for ties in float32


def test_what_masks_pick_of_must_be_there(make: Make, tmp_path: Path) -> None:
    out = make("emr", rows=False)
    with pytest.raises(Unfit, match="lies elsewhere"):
        apply(out / "routing" / "expert-00001.safetensors", out / "animals", out=tmp_path / "out")
    _manifest(lambda m: m.update(common=False))(out)
    with pytest.raises(Problem, match="an expert picks of"):
        hs.load(out, task="animals")


def test_storage_is_told_as_the_disk_has_it(tuned: Family, twin: Path) -> None:
    told = json.loads((twin / "merge.json").read_text())["facts"]

    def size(path: Path) -> int:
        return sum(t.numel() * t.element_size() for t in load_file(path).values())

    experts = sum(size(p) for p in (twin / "routing").glob("expert-*.safetensors"))
    inodes = {p.stat().st_ino: size(p) for p in twin.glob("*/model-*.safetensors")}
    assert told["storage"]["experts"] == experts
    assert told["storage"]["router"] == size(twin / "routing" / "router.safetensors")
    assert told["storage"]["shared"] == sum(inodes.values())
    assert told["storage"]["models"] == sum(size(f / "model.safetensors") for f in tuned.models.values())
    whole = told["storage"]["shared"] + told["storage"]["router"] + experts
    assert told["storage"]["share"] == pytest.approx(whole / told["storage"]["models"], abs=1e-6)
    assert told["bytes"] == whole


@pytest.mark.parametrize("method", ["twin_merge", "emr", "surgery"])
def test_the_forecast_counts_what_stays_apart(
    tuned: Family, targets: dict[str, Target], make: Make, method: str
) -> None:
    settings = {"keep": 0.2} if method == "twin_merge" else {}
    plan = planned(list(tuned.models.values()), method, base=tuned.base, settings=settings)
    cost = forecast(plan, tasks=tasks_of(plan, targets))
    facts = json.loads((make(method, **settings) / "merge.json").read_text())["facts"]
    assert cost.bytes_written == facts["bytes"]
    assert cost.learning is not None
    assert cost.step is not None
    assert cost.learning >= cost.step
    assert forecast(planned(list(tuned.models.values()), "twin_merge", base=tuned.base)).step is None


def test_experts_are_as_narrow_as_the_body(make: Make) -> None:
    out = make(keep=0.2, steps=5, dtype="bfloat16")
    held = load_file(out / "routing" / "expert-00001.safetensors")
    assert {t.dtype for t in held.values()} == {torch.bfloat16}
    assert RoutedModel(out).predict(read_unlabelled(["fox owl"]).inputs, "animals")


def test_the_same_merge_writes_the_same_bytes(make: Make, twin: Path) -> None:
    again = make(keep=0.2)
    for file in (twin / "routing").iterdir():
        assert file.read_bytes() == (again / "routing" / file.name).read_bytes()


def test_an_instance_is_known_by_what_it_returns(tuned: Family) -> None:
    assert kind_of(TwinMerge()) == "combination.routing"
    assert planned(list(tuned.models.values()), TwinMerge(), base=tuned.base).apart


def test_refusals(tuned: Family, targets: dict[str, Target], twin: Path) -> None:
    models = list(tuned.models.values())
    plan = planned(models, "twin_merge", base=tuned.base)
    with pytest.raises(Refused, match="reads rows, and none are named"):
        with_rows(plan, {})
    with pytest.raises(Refused, match="no rows are named for `times`"):
        with_rows(plan, {t: targets[t] for t in ("animals", "places")})
    with pytest.raises(Refused, match="keeps parts of the models apart"):
        planned(models, "twin_merge", base=tuned.base, heads="average")
    _, (refused,) = entrants(plan, ["twin_merge"], labels=True)
    assert "makes no one model" in refused["why"]
    with pytest.raises(Unfit, match="there is no task `birds`"):
        hs.load(twin, task="birds")


def _manifest(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "routing" / "routing.json"
        said = json.loads(path.read_text())
        change(said)
        path.write_text(json.dumps(said))

    return spoil


def _tensors(name: str, change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        from safetensors import safe_open

        with safe_open(folder / name, "pt") as file:
            metadata = file.metadata()
        held = load_file(folder / name)
        change(held)
        (folder / name).unlink()
        save_file(held, folder / name, metadata=metadata)

    return spoil


ROUTER = "routing/router.safetensors"
SPOILT: dict[str, tuple[Callable[[Path], None], str]] = {
    "newer": (_manifest(lambda m: m.update(format=2)), "reads up to 1"),
    "outside": (_manifest(lambda m: m["tasks"][0].update(folder="..")), "leads out of the folder"),
    "deep": (_manifest(lambda m: m["tasks"][0].update(folder="a/b")), "folder"),
    "gone": (_manifest(lambda m: m["tasks"][0].update(folder="birds")), "no folder"),
    "twice": (_manifest(lambda m: m["tasks"][0].update(name="times")), "two tasks have one name"),
    "no tensor": (_manifest(lambda m: m["tasks"][0].update(head=["x"])), "has no tensor `x`"),
    "more keys": (_manifest(lambda m: m.update(code="os.system")), "Extra inputs"),
    "fewer tasks": (_manifest(lambda m: m["tasks"].pop()), "3 experts apart, and there are 2"),
    "swapped": (_manifest(lambda m: m["tasks"].reverse()), "made for other weights"),
    "top": (_manifest(lambda m: m["router"].update(top=9)), "router"),
    "no router": (lambda f: (f / ROUTER).unlink(), "it is missing"),
    "no expert": (lambda f: (f / "routing/expert-00003.safetensors").unlink(), "there is no file"),
    "router": (_tensors(ROUTER, lambda t: t.update(mean=torch.zeros(3))), "do not fit together"),
    "short": (lambda f: (f / ROUTER).write_bytes((f / ROUTER).read_bytes()[:-4]), "damaged"),
    "body": (
        _tensors("times/model-00002-of-00002.safetensors", lambda t: t["classifier.bias"].add_(1)),
        "made for other weights",
    ),
}


INSERTS = "routing/inserts.safetensors"
SPOILT_INSERTS: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "gone": ("surgery", lambda f: (f / INSERTS).unlink(), "it is missing"),
    "short": ("wemoe", lambda f: (f / INSERTS).write_bytes((f / INSERTS).read_bytes()[:-4]), "damaged"),
    "half": ("surgery", _tensors(INSERTS, lambda t: t.pop("task.1.up")), "correction of task 2"),
    "wide": (
        "surgery",
        _tensors(INSERTS, lambda t: t.update({"task.1.up": torch.zeros(9, 8), "task.1.down": torch.zeros(8, 9)})),
        "does not fit its head",
    ),
    "more": ("surgery", _tensors(INSERTS, lambda t: t.update(x=torch.zeros(1))), "no place for `x`"),
    "gates": ("wemoe", _tensors(INSERTS, lambda t: t.pop("gates.0.1.bias")), "gates of block 1"),
    "inputs": (
        "wemoe",
        _tensors(INSERTS, lambda t: t.update({"gates.0.0.weight": torch.zeros(32, 5)})),
        "32 wide",
    ),
    "blocks": ("wemoe", _manifest(lambda m: m["blocks"].pop()), "no place for `gates.1"),
    "no layer": ("wemoe", _manifest(lambda m: m["blocks"][0].insert(0, "bert.embeddings.LayerNorm.weight")), "none of"),
    "no gates": ("wemoe", _manifest(lambda m: m.update(inserts=False)), "blocks without gates"),
}


@pytest.mark.parametrize("name", SPOILT_INSERTS)
def test_inserts_that_are_damaged_or_hostile_are_refused(three: dict[str, Path], tmp_path: Path, name: str) -> None:
    method, spoil, words = SPOILT_INSERTS[name]
    shutil.copytree(three[method], tmp_path / "out")
    spoil(tmp_path / "out")
    with pytest.raises(Problem, match=words):
        hs.load(tmp_path / "out", task="places").predict(["fox near"])


@pytest.mark.parametrize("name", SPOILT)
def test_what_is_damaged_or_hostile_is_refused(twin: Path, tmp_path: Path, name: str) -> None:
    spoil, words = SPOILT[name]
    shutil.copytree(twin, tmp_path / "out")
    spoil(tmp_path / "out")
    with pytest.raises(Problem, match=words):
        hs.load(tmp_path / "out")


def test_a_router_of_another_model_is_refused(twin: Path, tmp_path: Path) -> None:
    shutil.copytree(twin, tmp_path / "out")
    wide = {"mean": torch.zeros(5), "spread": torch.ones(5), "0.weight": torch.zeros(3, 5), "0.bias": torch.zeros(3)}
    save_file(wide, tmp_path / "out" / ROUTER)
    with pytest.raises(Problem, match="reads 5 numbers of an input, and the model gives 32"):
        hs.load(tmp_path / "out").predict(["fox"])
