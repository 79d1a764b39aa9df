"""The choice of a merge: on models of which we know which merge is good, and what it must not look at."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import headstart as hs
from headstart.combination import auto
from headstart.combination.entrants import entrants
from headstart.combination.merging import merge, planned
from headstart.core import Budget, Refused, Target
from headstart.evidence import merge_report
from tiny_models import save_model, save_tokenizer
from tuned_models import LABELS, Family

FEW = ["task_arithmetic", "ties", "regmean", "dare"]


def target(family: Family, task: str) -> Target:
    return hs.read_target(family.tables[task]["valid"], label="label", test=family.tables[task]["test"], name=task)


def several(family: Family) -> dict[str, Target]:
    return {task: target(family, task) for task in family.models}


def chosen(family: Family, out: Path, targets: Any = None, **options: Any) -> Any:
    models, options = list(family.models.values()), {"methods": FEW, **options}
    made = hs.merge_auto(models, targets or several(family), out=out, base=family.base, **options)
    return made, made.receipt.facts["learned"]["choice"]


@pytest.fixture(scope="module")
def result(tuned: Family, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return chosen(tuned, tmp_path_factory.mktemp("auto") / "out")


def test_the_winner_was_best_on_the_rows_to_choose_by(result: Any) -> None:
    _, facts = result
    last = [c for c in facts["candidates"] if not c["left"]]
    best = max(last, key=lambda c: float(np.mean([c["scores"][-1], *c["spread"]])))
    assert facts["winner"] == best["name"]
    assert all(best["scores"][-1] >= b["scores"][-1] for b in facts["baselines"])
    assert [b["name"] for b in facts["baselines"]] == ["animals", "places", "times", "mean of all"]
    assert len(facts["candidates"]) == 5 + 6 + 2 + 1


def test_it_is_better_than_the_baselines_where_it_says_so(result: Any) -> None:
    _, facts = result
    by_name = {s["name"]: s for s in facts["systems"]}
    gain = by_name[facts["winner"]]["mean"] - by_name[facts["opponent"]]["mean"]
    assert facts["gain"]["value"] == pytest.approx(gain)
    assert facts["verdict"] == "helps"
    assert facts["gain"]["low"] > 0
    assert by_name["animals"]["tasks"][0]["value"] > 0.9  # its own task
    assert by_name["animals"]["normalised"] < 1


def test_the_models_themselves_are_the_upper_bound_at_their_cost(result: Any) -> None:
    _, facts = result
    by_name = {s["name"]: s for s in facts["systems"]}
    bound = by_name[auto.OWN]
    own = [by_name[t["task"]]["tasks"][i] for i, t in enumerate(facts["tasks"])]
    assert bound["tasks"] == own
    assert bound["normalised"] == 1
    assert bound["mean"] == pytest.approx(float(np.mean([t["value"] for t in own])))
    assert bound["low"] <= bound["mean"] <= bound["high"]
    assert (bound["models"], bound["passes"]) == (3, 1)
    assert {(s["models"], s["passes"]) for s in facts["systems"] if s is not bound} == {(1, 1)}
    assert auto.TOGETHER not in by_name  # no model has another's labels


def test_shares_of_own_models_have_intervals_of_the_same_draws(tuned: Family, result: Any) -> None:
    """Of one task they follow from the rows: correct rows of one model over those of the other, drawn again by hand."""
    _, facts = result
    by_name = {s["name"]: s for s in facts["systems"]}
    assert (by_name[auto.OWN]["normalised_low"], by_name[auto.OWN]["normalised_high"]) == (1, 1)
    for system in facts["systems"]:
        assert system["normalised_low"] <= system["normalised"] <= system["normalised_high"]

    draw, rows, draws = np.random.default_rng(5), 300, 4000
    own, other = draw.random((3, rows)) < 0.9, draw.random((3, rows)) < 0.6
    truth = np.zeros(rows, dtype=int)

    def table(right: Any) -> Any:
        return np.stack([right, ~right], axis=1).astype(float)

    opened = [
        SimpleNamespace(rows=SimpleNamespace(metric="accuracy", labels=truth), groups=list(map(str, range(rows))))
    ]
    sides = [SimpleNamespace(choose=SimpleNamespace(metric="accuracy", name=str(t))) for t in range(3)]
    single, spread = (auto._resampled(opened * 3, [table(o) for o in one]) for one in (own, other))  # type: ignore
    contest = SimpleNamespace(sides=sides)
    found = auto._Contest._system(contest, "other", *spread, single, 1, 1)  # type: ignore[arg-type]
    shares = np.zeros(draws)
    for one, two in zip(own, other, strict=True):
        at = draw.integers(0, rows, (draws, rows))
        shares += two[at].mean(axis=1) / one[at].mean(axis=1) / 3
    assert found["normalised"] == pytest.approx(np.mean(other.mean(axis=1) / own.mean(axis=1)))
    assert found["normalised_low"] == pytest.approx(np.quantile(shares, 0.025), abs=0.005)  # of 4,000 draws
    assert found["normalised_high"] == pytest.approx(np.quantile(shares, 0.975), abs=0.005)


@pytest.mark.parametrize(
    ("labels", "rows", "pooled", "trusted"),
    [
        (("0", "1"), ("animals", "places"), False, False),
        (("0", "1"), ("animals", "animals"), True, False),
        (("no", "yes"), ("animals", "places"), True, True),
    ],
)
def test_labels_that_are_numbers_do_not_make_two_tasks_one(
    labels: tuple[str, str], rows: tuple[str, str], pooled: bool, trusted: bool, tuned: Family, tmp_path: Path
) -> None:
    """0 and 1 are labels of any task; where two have the same names for them, that is taken on trust, and said."""
    targets = {}
    for model, task in zip(("animals", "places"), rows, strict=True):
        shutil.copytree(tuned.models[model], tmp_path / model)
        config = json.loads((tmp_path / model / "config.json").read_text())
        config |= {"id2label": dict(enumerate(labels)), "label2id": {n: i for i, n in enumerate(labels)}}
        (tmp_path / model / "config.json").write_text(json.dumps(config))
        head, *lines = tuned.tables[task]["valid"].read_text().splitlines()
        first, second = LABELS[task]
        named = [re.sub(f",{first}$", f",{labels[0]}", re.sub(f",{second}$", f",{labels[1]}", line)) for line in lines]
        (tmp_path / f"{model}.csv").write_text("\n".join([head, *named]))
        targets[model] = hs.read_target(tmp_path / f"{model}.csv", label="label", task="single_label", name=model)
    made = hs.merge_auto(
        [tmp_path / m for m in targets], targets, out=tmp_path / "out", base=tuned.base, methods=["karcher"]
    )
    facts = made.receipt.facts["learned"]["choice"]
    assert (auto.TOGETHER in [s["name"] for s in facts["systems"]]) == pooled
    said = "that `no`, `yes` mean the same for `animals` and `places` is taken on trust by the ensemble"
    assert facts["trusted"] == (said if trusted else "")
    assert (said in made.plan.warnings) == trusted
    assert ("is taken on trust" in (made.where / "report.html").read_text()) == trusted


def test_what_is_written_is_what_was_chosen(tuned: Family, tmp_path: Path) -> None:
    made, _ = chosen(tuned, tmp_path / "out", methods=["ties"], load=True)
    assert made.plan.method == "ties"
    rules = {r["rule"]: r["tensors"] for r in made.receipt.facts["tensors"] if r["how"] == "merged"}
    assert rules == {"`ties`": 39}
    assert [t["folder"] for t in made.receipt.facts["loaded"]] == list(tuned.models)
    merge(
        list(tuned.models.values()), "ties", base=tuned.base, settings=dict(made.plan.settings), heads="separate",
        out=tmp_path / "again",
    )  # fmt: skip
    found, wanted = (
        {n: t for f in sorted((tmp_path / w / "times").glob("*.safetensors")) for n, t in load_file(f).items()}
        for w in ("out", "again")
    )
    assert all(torch.equal(found[n], wanted[n]) for n in wanted)


def test_a_page_says_what_was_tried(result: Any) -> None:
    made, facts = result
    page = (made.where / "report.html").read_text()
    assert all(c["name"] in page for c in facts["candidates"])
    assert "<svg" in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")


def test_what_was_not_tried_took_no_time_on_the_page(result: Any) -> None:
    _, facts = result
    none = {**facts["candidates"][0], "name": "untried", "scores": [], "seconds": 0.0, "left": "was not tried"}
    page = merge_report.render("x", {**facts, "candidates": [none]})
    assert '<td class="n">–</td><td class="wide">was not tried' in page
    assert "0.0 s" not in page


def test_the_best_so_far_is_told(tuned: Family, tmp_path: Path) -> None:
    """By the scores that the page shows, on the rows of each rung; at the end that of the last."""
    told: list[tuple[str, str]] = []
    _, facts = chosen(tuned, tmp_path / "out", seeds=1, tell=lambda what, _, best: told.append((what, best)))
    assert {best for what, best in told if what == "baselines"} == {""}
    first = [float(best.split()[-1]) for what, best in told if what in ("data-free", "passes")]
    assert first == sorted(first)
    assert first[-1] <= round(max(c["scores"][0] for c in facts["candidates"]), 3)
    last = max((c for c in facts["candidates"] if not c["left"]), key=lambda c: c["scores"][-1])
    assert told[-1] == ("verify", f"{last['name']} {last['scores'][-1]:.3f}")


def test_the_same_choice_again(tuned: Family, result: Any, tmp_path: Path) -> None:
    _, facts = result
    _, again = chosen(tuned, tmp_path / "out")

    def plainly(found: Any) -> Any:
        return [{k: v for k, v in c.items() if k != "seconds"} for c in found["candidates"]], found["systems"]

    assert plainly(facts) == plainly(again)


def test_a_seal_is_broken_once_and_last(tuned: Family, tmp_path: Path) -> None:
    targets = several(tuned)
    seen = []

    def tell(what: str, *_: str) -> None:
        seen.append((what, sum(t.seal.opened for t in targets.values())))

    chosen(tuned, tmp_path / "out", targets, methods=["task_arithmetic"], tell=tell)
    assert {opened for what, opened in seen if what != "verify"} == {0}
    assert [t.seal.opened for t in targets.values()] == [1, 1, 1]


def test_sides_do_not_share_rows(tuned: Family) -> None:
    plan = planned(list(tuned.models.values()), "task_arithmetic", base=tuned.base, heads="separate")
    for test in (None, tuned.tables["animals"]["test"]):
        found = hs.read_target(tuned.tables["animals"]["valid"], label="label", test=test)
        sides = auto._sides(found, plan, 0)
        parts = [
            sides.learn.inputs,
            sides.choose.inputs,
            *([found.labelled.take(sides.kept).inputs] if not test else []),
        ]
        texts = [set(p.column("text").to_pylist()) for p in parts]
        assert sum(len(t) for t in texts) == len(set().union(*texts))
        assert sum(p.num_rows for p in parts) == len(found.labelled)
        assert sides.verify == (30 if test is None else 300)


def test_of_useless_merges_the_best_model_is_written(tuned: Family, tmp_path: Path) -> None:
    """One task, a good model and two that were spoilt: no mean of them is better than the good one alone."""
    from transformers import AutoModelForSequenceClassification

    models = []
    for number, name in enumerate(("odd", "good", "even")):
        model = AutoModelForSequenceClassification.from_pretrained(tuned.models["animals"])
        with torch.no_grad():
            for weight in model.bert.encoder.parameters():
                weight += (name != "good") * torch.randn(weight.shape, generator=torch.Generator().manual_seed(number))
        model.save_pretrained(tmp_path / name)
        save_tokenizer(tmp_path / name, longest=20)
        models.append(tmp_path / name)
    made = hs.merge_auto(models, [target(tuned, "animals")], out=tmp_path / "out", methods=["karcher", "multi_slerp"])
    facts = made.receipt.facts["learned"]["choice"]
    assert facts["winner"] == facts["opponent"] == "good"
    assert facts["gain"] is None
    assert facts["verdict"] == "no-evidence"
    assert [s["name"] for s in facts["systems"]][-1] == "ensemble of all"
    assert "no merge did better than `good`" in merge_report.sentence(facts)
    written, one = (load_file(f / "model.safetensors") for f in (tmp_path / "out", tmp_path / "good"))
    assert all(torch.equal(written[n], one[n]) for n in one)


def test_without_time_the_baselines_remain(tuned: Family, tmp_path: Path) -> None:
    _, facts = chosen(tuned, tmp_path / "out", budget=Budget(minutes=1e-6))
    assert {c["left"] for c in facts["candidates"]} == {"was not tried: the time was up"}
    assert facts["winner"] in [b["name"] for b in facts["baselines"]]


def test_finalists_that_draw_have_a_spread(tuned: Family, tmp_path: Path) -> None:
    _, facts = chosen(tuned, tmp_path / "out", methods=["dare"], seeds=3)
    assert all(len(c["spread"]) == 2 for c in facts["candidates"] if not c["left"])


def test_refusals(tuned: Family, tmp_path: Path) -> None:
    few = tmp_path / "few.csv"
    few.write_text("\n".join(tuned.tables["animals"]["valid"].read_text().splitlines()[:31]))
    small = hs.read_target(few, label="label")
    with pytest.raises(Refused, match="30 labelled rows, too few"):
        chosen(tuned, tmp_path / "out", {"animals": small})
    with pytest.raises(Refused, match="no rows are named"):
        hs.merge_auto(list(tuned.models.values()), [], out=tmp_path / "out")
    with pytest.raises(Refused, match="not whose they are"):
        hs.merge_auto(list(tuned.models.values()), list(several(tuned).values()), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_who_takes_part(tuned: Family) -> None:
    plan = planned(list(tuned.models.values()), "task_arithmetic", base=tuned.base, heads="separate")
    found, refused = entrants(plan, None, labels=False)
    assert [e.stage for e in found] == sorted((e.stage for e in found), key=["data-free", "passes", "learned"].index)
    assert {"slerp", "nuslerp", "atlas", "greedy_soup"} <= {r["name"] for r in refused}
    assert "adamerging" in {e.method for e in found}
    named, _ = entrants(plan, ["dare-ties"], labels=False)
    assert {(e.method, e.settings["consensus"]) for e in named} == {("dare", "elect")}


def test_interference_by_brute_force(tuned: Family, result: Any) -> None:
    _, facts = result
    base = load_file(tuned.base / "model.safetensors")
    each = [load_file(f / "model.safetensors") for f in tuned.models.values()]
    names = [n for n in base if n.startswith("bert.") and base[n].is_floating_point()]
    whole = [torch.cat([(one[n] - base[n]).double().flatten() for n in names]) for one in each]
    cosine = float(whole[0] @ whole[2] / whole[0].norm() / whole[2].norm())
    assert facts["interference"]["cosines"][0][2] == pytest.approx(cosine, abs=2e-4)
    moved = (whole[0] != 0) & (whole[2] != 0)
    apart = float(((whole[0] * whole[2]) < 0)[moved].double().mean())
    assert facts["interference"]["conflict"][0][2] == pytest.approx(apart, abs=2e-4)
    assert {p["part"] for p in facts["interference"]["layers"]} == {
        "bert.embeddings",
        "layer 0",
        "layer 1",
        "bert.pooler",
    }


def test_the_page_escapes_what_comes_from_outside(result: Any) -> None:
    _, facts = result
    hostile = json.loads(json.dumps(facts).replace(facts["winner"], "<script>alert(1)</script>"))
    page = merge_report.render("<b>x</b>", hostile)
    assert "<script>" not in page
    assert "<b>x</b>" not in page
    assert merge_report.render("x", facts) == merge_report.render("x", facts)


@pytest.mark.parametrize("model_type", ["vit", "resnet"])
def test_models_of_images_too(model_type: str, tmp_path: Path) -> None:
    """Also those with running statistics, which have no gradients."""
    draw = np.random.default_rng(0)
    for shade, label in enumerate(("low", "mid", "high")):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(24):
            pixels = draw.integers(80 * shade, 90 + 80 * shade, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{i}.png")
    models = [save_model(tmp_path / f"m{seed}", model_type, seed=seed, head=True) for seed in (0, 1)]
    base = save_model(tmp_path / "base", model_type, seed=5)
    rows = hs.read_target(tmp_path / "photos")
    methods = ["regmean", "fisher", "learned_soup"]
    made = hs.merge_auto(models, [rows], base=base, out=tmp_path / "out", methods=methods, budget=Budget(trials=3))
    facts = made.receipt.facts["learned"]["choice"]
    assert [len(c["scores"]) for c in facts["candidates"]] == [1, 1, 1]


def test_how_long_a_merge_learns(tuned: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the method's own steps, those of the choice and those that the time allows, the fewest; not next to none."""
    from headstart import catalogue
    from headstart.execution.meter import Meter

    plan = planned(list(tuned.models.values()), "task_arithmetic", base=tuned.base, heads="separate")
    sides = [auto._sides(t, plan, i) for i, t in enumerate(several(tuned).values())]
    now = [0.0]
    monkeypatch.setattr("headstart.execution.meter.time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(auto, "gradient", lambda *_: now.__setitem__(0, now[0] + 0.05))  # seconds of a step

    def steps(name: str, minutes: float, most: int = 100) -> int | None:
        contest = auto._Contest(plan, sides, Meter(Budget(minutes=minutes)), 1, most, lambda *_: None)
        with auto.alive(plan, [s.learn for s in sides], labels=True) as view:
            return contest._horizon(view, catalogue.make("combination.learning", name), "learned")

    assert steps("adamerging", np.inf) == 100
    assert steps("lorahub", np.inf) is None  # its own 40
    assert steps("lorahub", np.inf, most=7) == 7
    assert steps("adamerging", 0.056) == 22  # a third of 3.36 s
    with pytest.raises(Refused, match="is for 6 steps of learning"):
        steps("adamerging", 0.016)
