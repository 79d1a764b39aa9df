"""What a dry run says of merges that read rows, beside what they then take."""

from __future__ import annotations

import csv
import json
import random
import subprocess
import sys
import textwrap
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

import headstart as hs
from headstart import catalogue
from headstart.combination import forecasts
from headstart.combination.auto import foresee
from headstart.combination.learned import learned_from
from headstart.combination.live import LiveMerge
from headstart.combination.merging import carried_out, kind_of, planned, planned_choice, tasks_of, with_rows
from headstart.combination.rehearsal import Heaviest
from headstart.core import Target
from headstart.io.stored_heads import Whole
from tiny_models import WORDS, config_for, save_tokenizer
from tuned_models import Family

KINDS = ("matching", "learning", "routing", "loops")
METHODS = [
    pytest.param(name, marks=[pytest.mark.skipif(bool(catalogue.missing(e)), reason="its packages are not here")])
    for kind in KINDS
    for name, e in catalogue.entries(f"combination.{kind}").items()
]
FEW = {"steps": 3, "trials": 3, "router_steps": 3, "epochs": 0, "least_steps": 3, "rounds": 2}


def few(method: str) -> dict[str, Any]:
    """Settings by which a method takes few steps."""
    known = {f.name for f in fields(catalogue.entry(kind_of(method), method).load())}
    return {name: value for name, value in FEW.items() if name in known}


def weights_of(folder: Path) -> int:
    """Bytes of all tensors below a folder; of a file that several models share, once."""
    files = {f.stat().st_ino: f for f in folder.rglob("*.safetensors")}
    return sum(f.stat().st_size - 8 - int.from_bytes(f.read_bytes()[:8], "little") for f in files.values())


@pytest.fixture(scope="module")
def targets(tuned: Family) -> dict[str, Target]:
    return {t: hs.read_target(tuned.tables[t]["valid"], label="label", name=t) for t in tuned.models}


@pytest.mark.parametrize("method", METHODS)
def test_the_bytes_that_are_written(
    method: str, tuned: Family, targets: dict[str, Target], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecasts, "PATIENCE", 0.0)
    models, heads = list(tuned.models.values()), "separate"
    plan = planned(models, method, base=tuned.base, heads=heads, settings=few(method))
    cost = forecasts.forecast(plan, tmp_path / "out", tasks=tasks_of(plan, targets))
    made = carried_out(with_rows(plan, targets), tmp_path / "out")
    assert cost.bytes_written == made.receipt.facts["bytes"]
    assert weights_of(made.where) == pytest.approx(cost.bytes_written, rel=0.1)


@pytest.mark.parametrize("method", ["fisher", "regmean", "adamerging", "learned_soup", "wemoe"])
def test_the_rehearsal_meets_the_longest_rows_of_all(
    method: str, tuned: Family, targets: dict[str, Target], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    own = Whole.called

    def called(whole: Whole, inputs: Any, rows: Any) -> dict[str, torch.Tensor]:
        found = own(whole, inputs, rows)
        if torch.is_grad_enabled() or method == "regmean":
            sizes.append(found["input_ids"].numel())
        return found

    monkeypatch.setattr(Whole, "called", called)
    settings = {**few(method), **({"steps": 40} if "steps" in few(method) else {})}
    plan = planned(list(tuned.models.values()), method, base=tuned.base, heads="separate", settings=settings)
    longest = []
    for kind, steps in ((LiveMerge, None), (Heaviest, 1)):
        sizes.clear()
        learned_from(plan, tasks_of(plan, targets), steps=steps, kind=kind)
        longest.append(max(sizes))
        assert len(sizes) > (20 if kind is LiveMerge else 0)
    assert longest[0] == longest[1]


LONGEST = 256  # tokens
LABELS = {"one": ("low", "high"), "two": ("near", "far")}
SIZES = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 10, "num_attention_heads": 8,
         "max_position_embeddings": LONGEST}  # fmt: skip
LARGE = {
    "fisher": {},  # passes, backward
    "regmean": {},  # passes, forward
    "regmean_pp": {},  # the same, layer after layer
    "mats": {"steps": 3},  # solved step by step
    "adamerging": {"steps": 8},  # gradients in shares
    "concrete": {"steps": 4},  # gradients in every entry
    "graft": {"steps": 4},  # the same, of a part
    "atlas": {"epochs": 0, "least_steps": 12},  # shares of each tensor
    "lorahub": {"trials": 4},  # no gradients
    "evolve": {"trials": 4},  # the same, of any method
    "twin_merge": {"steps": 10, "keep": 0.05},  # parts of low rank
    "emr": {"steps": 10},  # masks
    "tall_mask": {"steps": 10},
    "onebit_merge": {"steps": 10},
    "surgery": {"steps": 10},  # states of rows
    "tint": {"steps": 10},  # parts that are learned
    "wemoe": {"steps": 2, "router_steps": 3},  # experts inside
    "learned_soup": {"steps": 4},  # a gradient for each model
    "greedy_soup": {},  # merges, one after the other
    "atm": {"rounds": 1, "steps": 3},  # copies that are trained
    "forkmerge": {"rounds": 1, "steps": 3},  # all of them kept
    "cold_fusion": {"rounds": 1, "steps": 3},
}  # fmt: skip
PEAK = """
    import sys, json
    from pathlib import Path
    import headstart as hs
    from headstart.combination import forecasts
    from headstart.combination.merging import carried_out, planned, tasks_of, with_rows
    place, method, settings, told = Path(sys.argv[1]), *sys.argv[2:]
    plan = planned([place / "one", place / "two"], method, base=place / "base", heads="separate",
                   settings=json.loads(settings))
    targets = {n: hs.read_target(place / f"{n}.csv", label="label", name=n) for n in ("one", "two")}
    if told == "forecast":
        forecasts.PATIENCE = 0.0
        print(forecasts.forecast(plan, place / method, tasks=tasks_of(plan, targets)).peak_bytes)
    else:
        carried_out(with_rows(plan, targets), place / method)
        lines = Path("/proc/self/status").read_text().splitlines()
        print(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of 32 million numbers, two models of it, and rows of theirs, short ones but for one in 25."""
    from transformers import AutoModelForSequenceClassification

    place = tmp_path_factory.mktemp("large")
    for number, (name, labels) in enumerate({"base": LABELS["one"], **LABELS}.items()):
        named = {"id2label": dict(enumerate(labels)), "label2id": {v: i for i, v in enumerate(labels)}}
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = AutoModelForSequenceClassification.from_config(config_for("bert", **SIZES, **named))
            with torch.no_grad():
                for weight in model.bert.parameters():
                    weight += 0.001 * number * torch.randn_like(weight)
        model.save_pretrained(place / name)
        save_tokenizer(place / name, longest=LONGEST)
        draw = random.Random(number)
        with (place / f"{name}.csv").open("w", newline="") as file:
            rows = [" ".join(draw.choices(WORDS, k=200 if i % 25 == 7 else draw.randint(3, 15))) for i in range(60)]
            csv.writer(file).writerows([("text", "label"), *((r, labels[i % 2]) for i, r in enumerate(rows))])
    return place


@pytest.mark.slow
@pytest.mark.parametrize("method", list(LARGE))
def test_the_forecast_of_memory_holds_within_a_tenth(method: str, large: Path) -> None:
    peaks = {}
    for told in ("forecast", "run"):
        words = [sys.executable, "-c", textwrap.dedent(PEAK), str(large), method, json.dumps(LARGE[method]), told]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        peaks[told] = int(done.stdout.strip().splitlines()[-1])
    assert 0.9 < peaks["forecast"] / peaks["run"] < 1.1, peaks


def test_what_a_choice_holds_does_not_grow_with_the_square_of_the_vocabulary(
    tuned: Family, targets: dict[str, Target]
) -> None:
    """Embeddings of words are no layer with inputs."""
    plan, rows = planned_choice(list(tuned.models.values()), targets, base=tuned.base)
    entrants = foresee(plan, rows, methods=["regmean"]).entrants
    (table,) = (m for m in plan.made if m.name.endswith("word_embeddings.weight"))
    large = replace(table, shape=(1_000_000, table.shape[1]))
    wide = replace(plan, made=tuple(large if m is table else m for m in plan.made))
    more = forecasts.held_in_choice(wide, entrants) - forecasts.held_in_choice(plan, entrants)
    assert 4 * large.size < more < 20 * 4 * large.size


CHOICE = """
    import sys
    from pathlib import Path
    import headstart as hs
    from headstart.combination.auto import choose, foresee
    from headstart.combination.forecasts import held_in_choice
    from headstart.combination.merging import carried_out, planned_choice
    place, method, told = Path(sys.argv[1]), *sys.argv[2:]
    targets = {n: hs.read_target(place / f"{n}-short.csv", label="label", name=n) for n in ("one", "two")}
    plan, rows = planned_choice([place / "one", place / "two"], targets, base=place / "base")
    if told == "forecast":
        print(held_in_choice(plan, foresee(plan, rows, methods=[method]).entrants))
    else:
        carried_out(choose(plan, rows, methods=[method], steps=3, seeds=1).plan, place / "chosen", overwrite=True)
        lines = Path("/proc/self/status").read_text().splitlines()
        print(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")))
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["task_arithmetic", "regmean", "fisher"])
def test_the_forecast_of_what_a_choice_holds_is_within_a_tenth(method: str, large: Path) -> None:
    """On short rows, for what a batch takes comes on top of it."""
    for name in LABELS:
        rows = [line for line in (large / f"{name}.csv").read_text().splitlines() if len(line.split()) < 20]
        (large / f"{name}-short.csv").write_text("\n".join(rows))
    peaks = {}
    for told in ("forecast", "run"):
        words = [sys.executable, "-c", textwrap.dedent(CHOICE), str(large), method, told]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        peaks[told] = int(done.stdout.strip().splitlines()[-1])
    assert 0.9 < peaks["forecast"] / peaks["run"] < 1.1, peaks
