"""Merges that train, on real models: what they see, what they gain and what they write, beside transformers itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import headstart as hs
from headstart.combination.entrants import entrants
from headstart.combination.live import LiveMerge, TaskRows, alive, task_rows
from headstart.combination.loops.atm import Atm
from headstart.combination.loops.cold_fusion import ColdFusion
from headstart.combination.merging import kind_of, merge, merge_auto, planned, with_rows
from headstart.combination.plans import Plan
from headstart.core import Refused, Steps, Target, Unfit
from headstart.numerics import stream
from headstart.numerics.learning import outputs
from tiny_models import images, save_model, texts
from tuned_models import Family


def targets(family: Family, split: str = "valid") -> dict[str, Target]:
    return {t: hs.read_target(family.tables[t][split], label="label", name=t) for t in family.models}


@pytest.fixture(scope="module")
def plan(tuned: Family) -> Plan:
    return planned(list(tuned.models.values()), "task_arithmetic", base=tuned.base, heads="separate")


@pytest.fixture(scope="module")
def views(tuned: Family, plan: Plan) -> Iterator[dict[str, LiveMerge]]:
    """On the rows of each split."""
    with ExitStack() as stack:
        found = {}
        for split in ("train", "valid", "test"):
            tasks = [task_rows(t, plan, i) for i, t in enumerate(targets(tuned, split).values())]
            found[split] = stack.enter_context(alive(plan, tasks, labels=True))
        yield found


def right(view: LiveMerge, weights: Any) -> float:
    """Mean accuracy over the tasks."""
    found = []
    for task in range(len(view.tasks)):
        truth = view.labels(task, range(view.rows(task)))
        found.append(float((outputs(view, weights, task).argmax(1) == truth).double().mean()))
    return float(np.mean(found))


def base_of(view: LiveMerge) -> dict[str, torch.Tensor]:
    return view.shared(np.zeros((len(view.tensors), len(view.models))))


def test_rounds_of_tuning_beat_one_merge(views: dict[str, LiveMerge]) -> None:
    """On rows that are not tuned on: task arithmetic at any scale is behind, and more rounds are better."""
    valid, test = views["valid"], views["test"]
    found = [Atm(rounds=r, learning_rate=1e-3)(valid, base_of(valid), Steps()).weights for r in (1, 4, 10)]
    scores = [right(test, w) for w in found]
    assert scores[0] < scores[1] < scores[2]
    shape = (len(test.tensors), 3)
    assert scores[0] == right(test, test.shared(np.full(shape, 1 / 3)))
    assert scores[2] > max(right(test, test.shared(np.full(shape, s))) for s in (0.3, 0.5, 0.7, 1.0)) + 0.01


def test_a_spoilt_model_is_no_contributor(views: dict[str, LiveMerge], tuned: Family, tmp_path: Path) -> None:
    """Of four fine-tunes one has noise for its body, and one is no numbers."""
    from transformers import AutoModelForSequenceClassification

    for name, factor in (("noise", 30.0), ("nothing", torch.nan)):
        model = AutoModelForSequenceClassification.from_pretrained(tuned.models["times"])
        with torch.no_grad():
            for weight in model.bert.parameters():
                weight += factor * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
        model.save_pretrained(tmp_path / name)
        for file in tuned.models["times"].glob("token*"):
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
    models = [tuned.models["animals"], tuned.models["places"], tmp_path / "noise", tmp_path / "nothing"]
    made = merge(
        models, ColdFusion(rounds=1), base=tuned.base, heads="separate", out=tmp_path / "out",
        targets={t: targets(tuned)[t] for t in ("animals", "places")},
    )  # fmt: skip
    (told,) = made.receipt.facts["learned"]["rounds"]
    taken = [c["taken"] for c in told["contributions"]]
    assert any(taken[:2])
    assert not any(taken[2:])
    assert told["contributions"][3]["probe"] is None
    each = [load_file(m / "model.safetensors") for m in models[:2]]
    body = written(tmp_path / "out" / "animals")
    name = "bert.encoder.layer.1.output.dense.weight"
    kept = [e[name] for e, t in zip(each, taken[:2], strict=True) if t]
    torch.testing.assert_close(body[name], torch.stack(kept).mean(0))


def written(folder: Path) -> dict[str, torch.Tensor]:
    return {n: t for f in sorted(folder.glob("*.safetensors")) for n, t in load_file(f).items()}


def test_what_was_trained_is_what_is_written(tuned: Family, views: dict[str, LiveMerge], tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    settings = {"rounds": 2, "steps": 3, "learning_rate": 1e-3}
    made = merge(
        list(tuned.models.values()), "atm", base=tuned.base, settings=settings, heads="separate",
        out=tmp_path / "out", targets=targets(tuned),
    )  # fmt: skip
    wanted = Atm(rounds=2, steps=3, learning_rate=1e-3)(views["valid"], base_of(views["valid"]), Steps()).weights
    for task, folder in tuned.models.items():
        found, own = written(tmp_path / "out" / task), load_file(folder / "model.safetensors")
        assert set(found) == set(own)
        for name in own:
            assert torch.equal(found[name], wanted.get(name, own[name])), name
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "out" / task)
    said = json.loads((tmp_path / "out" / "merge.json").read_text())["facts"]["learned"]
    assert said["rounds"] == 2
    assert [r for r, _ in said["curve"]] == [0, 1, 2]
    assert len(said["weights"]) == 16
    assert made.plan.reads is None


def test_a_merge_that_was_stopped_goes_on(tuned: Family, tmp_path: Path) -> None:
    models = list(tuned.models.values())

    def told(folder: str, report: Any = None) -> None:
        merge(
            models, "atm", base=tuned.base, settings={"rounds": 2, "steps": 2}, heads="separate", dtype="bfloat16",
            out=tmp_path / folder, targets=targets(tuned), report=report, threads=1,
        )  # fmt: skip

    first: list[int] = []
    with pytest.raises(stream.Stopped):
        told("out", lambda done, total: first.append(done) is None and done < total / 2)
    again: list[int] = []
    told("out", lambda done, _: again.append(done) is None)
    assert again[0] > first[0]
    told("whole")
    for task in tuned.models:
        one, other = written(tmp_path / "out" / task), written(tmp_path / "whole" / task)
        assert one["bert.pooler.dense.bias"].dtype == torch.bfloat16
        assert all(torch.equal(one[n], other[n]) for n in one)


def test_a_loop_begins_at_any_merge(tuned: Family, tmp_path: Path) -> None:
    models = list(tuned.models.values())
    merge(models, "ties", base=tuned.base, heads="separate", out=tmp_path / "ties")
    for name, settings in (("atm", {"start": "ties", "rounds": 0}), ("forkmerge", {"start": "ties", "rounds": 0})):
        merge(
            models, name, base=tuned.base, heads="separate", out=tmp_path / name, settings=settings,
            targets=targets(tuned),
        )  # fmt: skip
        one, other = written(tmp_path / name / "times"), written(tmp_path / "ties" / "times")
        assert all(torch.equal(one[n], other[n]) for n in one)


def test_refusals(tuned: Family, tmp_path: Path) -> None:
    models = list(tuned.models.values())
    with pytest.raises(Refused, match="no base is given"):
        planned(models, "atm")
    with pytest.raises(Refused, match="reads rows, and none are named"):
        with_rows(planned(models, "atm", base=tuned.base, heads="separate"), [])
    for start, words in (("tise", "no way to merge is called `tise`"), ("atm", "reads rows, which a rule")):
        found = planned(models, "atm", base=tuned.base, heads="separate", settings={"start": start})
        with pytest.raises((Unfit, Refused), match=words):
            with_rows(found, targets(tuned))


def test_auto_trains_where_it_is_asked_to(tuned: Family, plan: Plan, tmp_path: Path) -> None:
    assert not {e.method for e in entrants(plan, None, labels=True)[0]} & {"atm", "cold_fusion", "forkmerge"}
    made = merge_auto(
        list(tuned.models.values()), targets(tuned, "train"), base=tuned.base, out=tmp_path / "out",
        methods=["task_arithmetic", "atm"], seeds=1,
    )  # fmt: skip
    choice = made.receipt.facts["learned"]["choice"]
    (atm,) = (c for c in choice["candidates"] if c["name"] == "atm")
    assert atm["stage"] == "trained"
    assert atm["scores"]


def test_an_instance_is_of_its_kind() -> None:
    assert kind_of(Atm()) == "combination.loops"


HEADS = {
    "bert": "classifier", "roberta": "classifier.out_proj", "distilbert": "classifier",
    "vit": "classifier", "resnet": "classifier.1",
}  # fmt: skip


def shown(folder: Path, model_type: str, tmp_path: Path) -> tuple[TaskRows, Any]:
    """Rows of three labels, and a model as transformers has it."""
    from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification

    picture = model_type in ("vit", "resnet")
    rows = images(tmp_path, 7) if picture else texts(9, longest=12)
    task = TaskRows("rows", rows, np.arange(len(rows)) % 3, (0, 1, 2), "accuracy")
    kind = AutoModelForImageClassification if picture else AutoModelForSequenceClassification
    return task, kind.from_pretrained(folder).eval()


@pytest.mark.parametrize("model_type", HEADS)
def test_features_are_what_goes_into_the_head(model_type: str, tmp_path: Path) -> None:
    folders = [save_model(tmp_path / n, model_type, head=True, seed=s) for s, n in enumerate("ab")]
    base = save_model(tmp_path / "base", model_type, head=True, seed=5)
    task, model = shown(folders[0], model_type, tmp_path)
    with alive(planned(folders, "task_arithmetic", base=base), [task], labels=True) as view:
        one = np.zeros((len(view.tensors), 2))
        one[:, 0] = 1
        rows = [4, 0, 3, 1]
        with torch.no_grad():
            features = view.features(view.shared(one), 0, rows)
            logits = view.logits(view.shared(one), 0, rows)
            head = model.get_submodule(HEADS[model_type])
            seen: list[torch.Tensor] = []
            head.register_forward_hook(lambda _, x, __: seen.append(x[0]))
            for number, row in enumerate(rows):  # one by one, so that there is no padding
                alone = model(**view._whole.called(task.inputs, [row])).logits
                torch.testing.assert_close(logits[number], alone[0], rtol=1e-4, atol=1e-4)
                torch.testing.assert_close(features[number], seen[-1][0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(torch.nn.functional.linear(features, head.weight, head.bias), logits)


def test_running_statistics_stay_and_the_rest_is_trained(tmp_path: Path) -> None:
    folders = [save_model(tmp_path / n, "resnet", head=True, seed=s) for s, n in enumerate("ab")]
    base = save_model(tmp_path / "base", "resnet", head=True, seed=5)
    task, _ = shown(folders[0], "resnet", tmp_path)
    with alive(planned(folders, "task_arithmetic", base=base), [task], labels=True) as view:
        body = base_of(view)
        found = Atm(start="base", rounds=1, learning_rate=1e-2)(view, body, Steps()).weights
    moved = {n for n in body if not torch.equal(body[n], found[n])}
    assert {n for n in body if "running" in n}
    assert moved == {n for n in body if "running" not in n}
