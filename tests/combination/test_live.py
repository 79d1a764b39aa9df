"""Merges that read rows, on real models: what they see and what they write, against transformers itself."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import headstart as hs
from headstart.combination.live import LiveMerge, alive, task_rows
from headstart.combination.merging import merge, planned, with_rows
from headstart.combination.plans import Plan
from headstart.core import Refused, Steps, Target, Undeclared, Unfit
from headstart.io import recipes
from headstart.io.stored_heads import predictions
from headstart.numerics.learning import one_model, outputs
from headstart.testing.combination_learning import weights_of
from tiny_models import WORDS, save_model, save_tokenizer
from tuned_models import LABELS, Family


def target(family: Family, task: str, split: str = "valid") -> Target:
    return hs.read_target(family.tables[task][split], label="label", test=family.tables[task]["test"], name=task)


def targets(family: Family) -> dict[str, Target]:
    return {task: target(family, task) for task in family.models}


@pytest.fixture(scope="module")
def plan(tuned: Family) -> Plan:
    return planned(list(tuned.models.values()), "task_arithmetic", base=tuned.base, heads="separate")


@pytest.fixture(scope="module")
def view(tuned: Family, plan: Plan) -> Iterator[LiveMerge]:
    tasks = [task_rows(t, plan, i) for i, t in enumerate(targets(tuned).values())]
    with alive(plan, tasks, labels=True) as found:
        yield found


def theirs(folder: Path, table: Path) -> tuple[torch.Tensor, list[str]]:
    """Logits by transformers, of the rows of a file."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    with table.open() as file:
        _, *rows = csv.reader(file)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        out = model(**AutoTokenizer.from_pretrained(folder)([r[0] for r in rows], padding=True, return_tensors="pt"))
    return out.logits, [r[1] for r in rows]


def test_a_share_of_one_is_that_model(tuned: Family, view: LiveMerge) -> None:
    for number, (task, folder) in enumerate(tuned.models.items()):
        one_hot = np.zeros((len(view.tensors), 3))
        one_hot[:, number] = 1
        found = outputs(view, view.shared(one_hot), number)
        logits, labels = theirs(folder, tuned.tables[task]["valid"])
        classes = sorted(LABELS[task])  # as targets have them; the model's own order differs
        logits = logits[:, [LABELS[task].index(c) for c in classes]]
        by_row = {tuple(np.round(r, 4)): c for r, c in zip(logits.tolist(), labels, strict=True)}
        read = {tuple(np.round(r, 4)) for r in found.tolist()}
        assert len(read & set(by_row)) >= 0.95 * len(by_row)  # but for rounding to four places
        truth = view.labels(number, range(view.rows(number)))
        right = (found.argmax(1) == truth).float().mean()
        assert float(right) > 0.9


@pytest.mark.parametrize("model_type", ["vit", "dinov2", "swin", "convnext"])
def test_layers_that_transformers_calls_otherwise_than_the_files_are_merged_too(
    model_type: str, tmp_path: Path
) -> None:
    draw = np.random.default_rng(0)
    for label in ("low", "mid", "high"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(24):
            pixels = draw.integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{i}.png")
    models = [save_model(tmp_path / f"m{seed}", model_type, seed=seed, head=True) for seed in (0, 1)]
    base = save_model(tmp_path / "base", model_type, seed=5)
    plan = planned(models, "task_arithmetic", base=base)
    task = task_rows(hs.read_target(tmp_path / "photos"), plan)
    merge(models, "ties", base=base, out=tmp_path / "out")
    with alive(plan, [task], labels=False) as view:
        asked = view.made("ties", {})
        assert {n for n in view.tensors if n.endswith("weight")} < set(asked)
        logits = view.logits(asked, 0, range(view.rows(0)))
    wanted = predictions(recipes.read(tmp_path / "out"), task.inputs)
    alone = predictions(recipes.read(models[0]), task.inputs)
    found = logits.softmax(1).numpy()
    np.testing.assert_allclose(found, wanted[:, list(task.columns)], atol=1e-5)
    assert np.abs(wanted - alone).max() > 0.05  # the first model's weights are in memory before


def test_any_merge_is_made_as_it_is_written(tuned: Family, view: LiveMerge, tmp_path: Path) -> None:
    merge(list(tuned.models.values()), "ties", base=tuned.base, heads="separate", out=tmp_path / "out")
    made = view.made("ties", {})
    written: dict[str, torch.Tensor] = {}
    for file in (tmp_path / "out" / "times").glob("*.safetensors"):
        written |= load_file(file)
    assert set(made) <= set(written)
    assert all(torch.equal(made[n], written[n].float()) for n in made)


def test_settings_by_depth_are_written_as_they_were_tried(tuned: Family, view: LiveMerge, tmp_path: Path) -> None:
    made = merge(
        list(tuned.models.values()), "evolve", base=tuned.base, heads="separate", out=tmp_path / "out",
        settings={"groups": 2, "trials": 2, "merge": "ties", "search": (("density", 0.1, 1.0), ("scale", 0.2, 2.0))},
        targets=targets(tuned),
    )  # fmt: skip
    said = made.receipt.facts["learned"]
    assert set(said["own"]) == {n for n in view.tensors if "layer.1." in n}
    wanted = view.made("ties", said["settings"], said["own"])
    written: dict[str, torch.Tensor] = {}
    for file in (tmp_path / "out" / "times").glob("*.safetensors"):
        written |= load_file(file)
    assert all(torch.equal(wanted[n], written[n].float()) for n in wanted)


def test_labels_are_for_those_who_ask(tuned: Family, plan: Plan) -> None:
    tasks = [task_rows(t, plan, i) for i, t in enumerate(targets(tuned).values())]
    with alive(plan, tasks, labels=False) as view, pytest.raises(Undeclared):
        view.labels(0, [0])


def test_what_was_learned_is_what_is_written(tuned: Family, tmp_path: Path) -> None:
    plan = planned(list(tuned.models.values()), "atlas", base=tuned.base, heads="separate")
    made = merge(
        list(tuned.models.values()), "atlas", base=tuned.base, heads="separate", out=tmp_path / "out",
        settings={"epochs": 2, "least_steps": 10}, targets=targets(tuned),
    )  # fmt: skip
    assert plan.reads is not None
    receipt = json.loads((tmp_path / "out" / "merge.json").read_text())
    shares = receipt["facts"]["learned"]["shares"]
    assert len(receipt["facts"]["learned"]["curve"]) == 10
    base = load_file(tuned.base / "model.safetensors")
    each = [load_file(f / "model.safetensors") for f in tuned.models.values()]
    written: dict[str, torch.Tensor] = {}
    for file in (tmp_path / "out" / "animals").glob("*.safetensors"):
        written |= load_file(file)
    for name, share in shares.items():
        wanted = base[name] + sum(s * (one[name] - base[name]) for s, one in zip(share, each, strict=True))
        torch.testing.assert_close(written[name], wanted, rtol=1e-5, atol=1e-5)
    assert made.plan.reads is None


def test_learning_from_labels_beats_an_equal_share(tuned: Family, tmp_path: Path) -> None:
    models = list(tuned.models.values())
    merge(models, "task_arithmetic", base=tuned.base, heads="separate", out=tmp_path / "plain")
    merge(models, "atlas", base=tuned.base, heads="separate", out=tmp_path / "learned", targets=targets(tuned))

    def right(out: Path) -> float:
        found = []
        for task in tuned.models:
            logits, labels = theirs(out / task, tuned.tables[task]["test"])
            found += [LABELS[task][i] == label for i, label in zip(logits.argmax(1).tolist(), labels, strict=True)]
        return float(np.mean(found))

    assert right(tmp_path / "learned") > right(tmp_path / "plain") + 0.05


def body(folder: Path) -> dict[str, torch.Tensor]:
    """Tensors of a folder whose heads are kept apart, without the head."""
    found: dict[str, torch.Tensor] = {}
    for file in folder.glob("*.safetensors"):
        found |= {n: t for n, t in load_file(file).items() if not n.startswith("classifier")}
    return found


def test_a_graft_changes_few_entries_and_keeps_much(tuned: Family, tmp_path: Path) -> None:
    made = merge(
        [tuned.models["animals"]], "graft", base=tuned.base, heads="separate", out=tmp_path / "out",
        settings={"share": 0.1, "steps": 30}, targets={"animals": target(tuned, "animals")},
    )  # fmt: skip
    base, one, out = (body(f) for f in (tuned.base, tuned.models["animals"], tmp_path / "out" / "animals"))
    differs = {n: out[n] != base[n] for n in out}
    entries = sum(t.numel() for t in out.values())
    assert 0.09 < sum(int(d.sum()) for d in differs.values()) / entries <= 0.1
    assert all(torch.allclose(out[n][d], one[n][d], atol=1e-6) for n, d in differs.items())
    logits, labels = theirs(tmp_path / "out" / "animals", tuned.tables["animals"]["test"])
    right = [LABELS["animals"][i] == label for i, label in zip(logits.argmax(1).tolist(), labels, strict=True)]
    assert np.mean(right) > 0.85  # the base with this head is right half the time
    learned = made.receipt.facts["learned"]
    assert learned["kept"] == [pytest.approx(0.1, abs=1e-4)]
    assert learned["gates"]


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("graft", {"share": 0.05, "steps": 2}), ("concrete", {"steps": 3, "learning_rate": 0.1}),
        ("concrete", {"per": "entry", "final": "sample", "steps": 2, "learning_rate": 0.1}),
        ("adamerging", {"density": 0.2, "steps": 3}), ("atlas", {"parts": 3, "epochs": 0, "least_steps": 3}),
    ],
)  # fmt: skip
def test_gates_are_written_as_they_were_learned(
    tuned: Family, tmp_path: Path, method: str, settings: dict[str, Any]
) -> None:
    models = list(tuned.models.values())
    plan = planned(models, method, base=tuned.base, heads="separate", settings=settings)
    assert plan.reads is not None
    tasks = [task_rows(t, plan, i) for i, t in enumerate(targets(tuned).values())]
    with alive(plan, tasks, labels=plan.reads.needs.labels) as view:
        wanted = weights_of(view, plan.reads(view, Steps()))
    made = merge(
        models, method, base=tuned.base, heads="separate", settings=settings, out=tmp_path / "out",
        targets=targets(tuned),
    )  # fmt: skip
    written = body(tmp_path / "out" / "animals")
    assert set(wanted) <= set(written)
    for name, weights in wanted.items():
        torch.testing.assert_close(written[name], weights, rtol=1e-5, atol=1e-6)
    assert made.receipt.facts["learned"]["gates"]


def watched(model: torch.nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
    """By weight of a linear layer, the products of all inputs that will go into it, and how many these are."""
    sums: dict[str, Any] = {}
    counts: dict[str, int] = {}

    def see(name: str) -> Any:
        def hook(_: Any, args: tuple[torch.Tensor, ...], __: Any) -> None:
            x = args[0].reshape(-1, args[0].shape[-1]).double()
            sums[name] = sums.get(name, 0) + x.T @ x
            counts[name] = counts.get(name, 0) + len(x)

        return hook

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(see(f"{name}.weight"))
    return sums, counts


def grams(
    folder: Path, table: Path, rows: list[int], merged: dict[str, torch.Tensor] | None = None
) -> dict[str, torch.Tensor]:
    """Of what goes into each linear layer, by hooks of our own on transformers' model. merged: in place of its own."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    with table.open() as file:
        _, *all_rows = csv.reader(file)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    model.load_state_dict(merged or {}, strict=False)
    tokenizer, (sums, counts) = AutoTokenizer.from_pretrained(folder), watched(model)
    with torch.inference_mode():
        for r in rows:  # one by one, so that there is no padding
            model(**tokenizer(all_rows[r][0], return_tensors="pt"))
    return {n: sums[n] / counts[n] for n in sums}


def test_regmean_against_hooks_of_our_own(tuned: Family, tmp_path: Path) -> None:
    models = list(tuned.models.values())
    merge(models, "regmean", base=tuned.base, heads="separate", out=tmp_path / "out", targets=targets(tuned))
    written: dict[str, torch.Tensor] = {}
    for file in (tmp_path / "out" / "animals").glob("*.safetensors"):
        written |= load_file(file)
    each = [load_file(f / "model.safetensors") for f in models]
    seen = [grams(f, tuned.tables[t]["valid"], list(range(150))) for t, f in tuned.models.items()]
    name = "bert.encoder.layer.1.intermediate.dense.weight"
    small = [0.95 * g[name] + 0.05 * torch.diag(g[name].diagonal()) for g in seen]
    wanted = torch.linalg.solve(
        sum(small[1:], small[0]),
        sum((g @ e[name].T.double() for g, e in zip(small, each, strict=True)), torch.zeros(())),
    ).T
    torch.testing.assert_close(written[name].double(), wanted, rtol=1e-4, atol=1e-5)
    bias = "bert.encoder.layer.1.intermediate.dense.bias"
    torch.testing.assert_close(written[bias], torch.stack([e[bias] for e in each]).mean(0))


DISTANCES = {
    "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "share_att_key": True, "position_buckets": 8,
    "position_biased_input": False, "type_vocab_size": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("model_type", "settings", "transposed"),
    [
        ("deberta-v2", DISTANCES, ()),  # distances go through the queries' layer once for all rows of a batch
        ("longformer", {"attention_window": [8, 8]}, ("query", "key", "value", "key_global", "value_global")),
        # what these say of a row depends on the padding beside it
        ("mobilebert", {"true_hidden_size": 8, "intra_bottleneck_size": 8}, ()),
        ("convbert", {"head_ratio": 1, "conv_kernel_size": 3}, ()),
    ],
)
def test_what_passes_see_does_not_depend_on_which_rows_are_read_together(
    model_type: str, settings: dict[str, Any], transposed: tuple[str, ...], tmp_path: Path
) -> None:
    """Rows of 8, 16 and 24 tokens, in one batch with padding; and each alone by transformers, where none has any."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    models = [save_model(tmp_path / str(seed), model_type, head=True, seed=seed, **settings) for seed in (0, 1)]
    texts = [" ".join((WORDS * 2)[i : i + n]) for i in range(4) for n in (6, 14, 22)]
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        labels = ["low", "mid", "high"] * 4
        csv.writer(file).writerows([("text", "label"), *zip(texts, labels, strict=True)])
    base = save_model(tmp_path / "base", model_type, head=True, seed=5, **settings)
    plan = planned(models, "task_arithmetic", base=base)
    task = task_rows(hs.read_target(tmp_path / "rows.csv", label="label"), plan)
    with alive(plan, [task], labels=False) as view:
        found = view.passes(("inputs",), rows=12)[1]
        inputs = view._inputs[0]["text"].to_pylist()
        second = np.tile([0.0, 1.0], (len(view.tensors), 1))
        logits = view.logits(view.shared(second), 0, range(len(inputs)))
    model = AutoModelForSequenceClassification.from_pretrained(models[1]).eval()
    sums, counts = watched(model)
    tokenizer = AutoTokenizer.from_pretrained(models[1])
    with torch.inference_mode():
        told = torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in inputs])
    torch.testing.assert_close(logits, told[:, list(task.columns)], rtol=1e-4, atol=1e-4)
    assert {len(tokenizer(t)["input_ids"]) for t in inputs} == {8, 16, 24}
    assert all(any(f".{part}.weight" in n for n in sums) for part in transposed)
    for name, total in sums.items():
        seen = found[name].inputs
        assert seen is not None
        torch.testing.assert_close(seen, total / counts[name], rtol=1e-4, atol=1e-5)


def test_regmean_pp_against_hooks_on_merged_layers(tuned: Family, tmp_path: Path) -> None:
    models = list(tuned.models.values())
    merge(models, "regmean_pp", base=tuned.base, heads="separate", out=tmp_path / "out", targets=targets(tuned))
    written, each = body(tmp_path / "out" / "animals"), [load_file(f / "model.safetensors") for f in models]
    before = {n: t for n, t in written.items() if ".embeddings." in n or ".layer.0." in n}
    assert torch.equal(
        before["bert.embeddings.LayerNorm.bias"],
        torch.stack([e["bert.embeddings.LayerNorm.bias"] for e in each]).mean(0),
    )
    seen = [grams(f, tuned.tables[t]["valid"], list(range(150)), before) for t, f in tuned.models.items()]
    own = [grams(f, tuned.tables[t]["valid"], list(range(150))) for t, f in tuned.models.items()]
    for name in ("bert.encoder.layer.1.intermediate.dense.weight", "bert.encoder.layer.1.attention.self.query.weight"):
        fits = []
        for found in (seen, own):
            small = [0.95 * g[name] + 0.05 * torch.diag(g[name].diagonal()) for g in found]
            pulls = [g @ e[name].T.double() for g, e in zip(small, each, strict=True)]
            fits.append(torch.linalg.solve(sum(small[1:], small[0]), sum(pulls[1:], pulls[0])).T)
        torch.testing.assert_close(written[name].double(), fits[0], rtol=1e-4, atol=1e-5)
        assert float((written[name] - fits[1]).abs().max()) > 1e-3


def test_one_target_for_models_of_one_task(tuned: Family, tmp_path: Path) -> None:
    """A greedy soup of a good model and of two that know nothing of the task is the good one alone."""
    from transformers import AutoModelForSequenceClassification

    for name in ("odd", "even"):
        model = AutoModelForSequenceClassification.from_pretrained(tuned.models["animals"])
        with torch.no_grad():
            for weight in model.bert.encoder.parameters():
                weight += 0.5 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name)))
        model.save_pretrained(tmp_path / name)
        save_tokenizer(tmp_path / name, longest=20)
    made = merge(
        [tmp_path / "odd", tuned.models["animals"], tmp_path / "even"], "greedy_soup", out=tmp_path / "out",
        targets=[target(tuned, "animals")],
    )  # fmt: skip
    assert made.receipt.facts["learned"]["taken"] == ["animals"]
    written, one = (load_file(f / "model.safetensors") for f in (tmp_path / "out", tuned.models["animals"]))
    assert all(torch.equal(written[n], one[n]) for n in one)


def labelled(folder: Path, labels: list[str], task: str) -> Target:
    """Twelve texts with these labels."""
    with (folder / f"{task}.csv").open("w", newline="") as file:
        texts = [" ".join(WORDS[i : i + 3]) for i in range(12)]
        csv.writer(file).writerows([("text", "label"), *zip(texts, labels, strict=True)])
    return hs.read_target(folder / f"{task}.csv", label="label", task=task)


def of_kind(folder: Path, problem: str, seed: int) -> Path:
    """A classifier of three labels whose configuration says what they are."""
    save_model(folder, "distilbert", head=True, seed=seed)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"problem_type": problem}))
    return folder


def test_every_kept_head_is_read_as_its_own_files_say(tmp_path: Path) -> None:
    """The first model gives one class a row and the second several labels: its entropies are of each label."""
    kinds = {"one": "single_label_classification", "many": "multi_label_classification"}
    models = [of_kind(tmp_path / name, problem, seed) for seed, (name, problem) in enumerate(kinds.items())]
    base = save_model(tmp_path / "base", "distilbert", seed=5)
    plan = planned(models, "task_arithmetic", base=base, heads="separate")
    one = labelled(tmp_path, ["low", "mid", "high"] * 4, "single_label")
    many = labelled(tmp_path, ["low|mid", "mid", "high|low", "mid|high"] * 3, "multi_label")
    with alive(plan, [task_rows(one, plan, 0), task_rows(many, plan, 1)], labels=True) as view:
        assert [view.link(0), view.link(1)] == ["softmax", "sigmoid"]
        seen = view.passes(("squares",), rows=6)[1]
        weights = one_model(view, 1)
        leaf = weights["distilbert.transformer.layer.1.ffn.lin2.weight"].requires_grad_()
        wanted = torch.zeros_like(leaf)
        for row in np.random.default_rng(0).permutation(12)[:6]:
            for logit in view.logits(weights, 1, [int(row)])[0]:
                (slope,) = torch.autograd.grad(logit, leaf, retain_graph=True)
                wanted += torch.sigmoid(logit.detach()) * torch.sigmoid(-logit.detach()) * slope**2 / 6
    found = seen["distilbert.transformer.layer.1.ffn.lin2.weight"].squares
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(
    ("problem", "task", "labels", "said"),
    [
        ("single_label_classification", "regression", "1.5 2.5 3.5", "gives one class a row, and .* one number a row"),
        ("single_label_classification", "multi_label", "low|mid mid high", "one class a row, and .* several labels"),
        ("multi_label_classification", "single_label", "low mid high", "gives several labels a row, and .* one class"),
        ("regression", "single_label", "low mid high", "gives 3 numbers a row, and .* one class a row"),
        ("regression", "regression", "1.5 2.5 3.5", "gives 3 numbers a row, and .* one number a row"),
    ],
)
def test_a_head_of_another_kind_than_the_labels_is_refused(
    problem: str, task: str, labels: str, said: str, tmp_path: Path
) -> None:
    models = [of_kind(tmp_path / str(seed), problem, seed) for seed in (0, 1)]
    rows = labelled(tmp_path, labels.split() * 4, task)
    for method in ("greedy_soup", "regmean"):  # both gave numbers without a word
        with pytest.raises(Refused, match=said):
            merge(models, method, out=tmp_path / method, targets=[rows])


def test_refusals(tuned: Family, plan: Plan) -> None:
    models = list(tuned.models.values())
    learned = planned(models, "adamerging", base=tuned.base, heads="separate")
    with pytest.raises(Refused, match="reads rows, and none are named"):
        with_rows(learned, [])
    with pytest.raises(Refused, match="does not say whose it is"):
        with_rows(learned, [target(tuned, "animals")])
    with pytest.raises(Unfit, match="no model is called `birds`"):
        with_rows(learned, {"birds": target(tuned, "animals")})
    with pytest.raises(Refused, match="`calm` is no label of the models"):
        with_rows(learned, {"times": target(tuned, "animals")})
    with pytest.raises(Refused, match="no rows are named for `places`"):
        with_rows(
            planned(models, "regmean", base=tuned.base, heads="separate"),
            {t: target(tuned, t) for t in ("animals", "times")},
        )
    with pytest.raises(Refused, match="reads rows, which a rule"):
        with_rows(
            planned(models, "evolve", base=tuned.base, heads="separate", settings={"merge": "fisher"}), targets(tuned)
        )
