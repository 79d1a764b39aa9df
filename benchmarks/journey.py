"""The figures of the journey: import times, the budget kept, features, and `solve` on real sets against its rivals.

    python benchmarks/journey.py --json figures.json --work WORK [--quick] [--only imports,budget,features,solve]
        [--sets trec6,penguins] [--sizes 8,32,128] [--minutes 2] [--runs 54] [--setfit-python PYTHON] [--data DIR]

Prints Markdown. Raw results go to the JSON file after every cell, and what stands there is not done again, so that a
run may be stopped at any time and taken up; `--only report` prints the tables of a file, and `--only brief` the one in
the README. `benchmarks/README.md` says how long it takes and how each figure is made.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import journey_sets as sets
from journey_report import brief, report

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
DATA, STARTER = ROOT.parent / "shared" / "data", ROOT / "src" / "headstart" / "starter"
HEADSTART = [sys.executable, "-m", "headstart"]
PARTS = ("imports", "budget", "features", "solve")
SETS = ("trec6", "banking77", "cr", "tweet_emotion", "sign_digits", "hoda_persian_digits", "penguins", "titanic",
         "wdbc", "california_housing", "auto_mpg")  # fmt: skip
HEAVY = ("numpy", "torch", "transformers", "peft", "sklearn", "scipy", "pandas", "pyarrow", "datasets", "accelerate",
         "sentence_transformers", "sqlalchemy", "alembic", "matplotlib", "PIL", "numba", "lightgbm", "onnxruntime",
         "optuna", "ray")  # fmt: skip
LIMITS = (0.15, 0.25, 0.5)  # minutes
SHELVES = ("none", "one", "broken", "sleeping")
# set, labels of each class (see journey_sets.NUMBERS), whether the test rows are given too
TASKS = (("trec6", 8, False), ("banking77", 32, True), ("sign_digits", 8, False), ("notmnist", 128, True),
         ("titanic", 8, False), ("california_housing", 128, True))  # fmt: skip


@dataclass(frozen=True, slots=True)
class FineTune:
    """A source that the benchmark makes with `headstart adapt`; base None is MiniLM, else one of the starter shelf."""

    name: str
    data: str
    per_class: int
    epochs: int = 2
    base: str | None = None


FINE_TUNES = (
    FineTune("minilm-sst2", "sst2", 500),
    FineTune("minilm-clinc-domain", "clinc_domain", 100),
    FineTune("minilm-goemotions", "goemotions", 40),
    FineTune("starter-mnist", "mnist", 100, base="image"),
)
QUICK_TUNES = (FineTune("starter-mnist", "mnist", 20, epochs=1, base="image"),)


class Record:
    """The JSON file: results by key, each with the settings that it was made with; written whole after every one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cells: dict[str, dict[str, Any]] = {}
        self.begun = {"machine": _machine(), "cells": self.cells}
        if path.exists():
            self.begun = json.loads(path.read_text(encoding="utf-8"))
            self.cells = self.begun["cells"]

    def has(self, key: str, settings: Mapping[str, Any]) -> bool:
        """Whether this was done with these settings, and went well."""
        cell = self.cells.get(key)
        return cell is not None and "error" not in cell and cell["settings"] == json.loads(json.dumps(settings))

    def put(self, key: str, settings: Mapping[str, Any], found: Mapping[str, Any]) -> None:
        self.cells[key] = {**found, "settings": dict(settings)}
        beside = self.path.with_name(self.path.name + ".part")
        beside.write_text(json.dumps(self.begun, indent=1, ensure_ascii=False), encoding="utf-8")
        beside.replace(self.path)
        say(f"{key}: {found['error']}" if "error" in found else key)


def say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def _machine() -> dict[str, Any]:
    return {"system": platform.platform(), "cores": os.cpu_count(), "python": platform.python_version()}


def timed(command: Sequence[str], *, limit: float = 1800.0, log: Path | None = None, **env: str) -> dict[str, Any]:
    """Wall seconds from before the start to after the end, exit code, and stdout. log: for stderr."""
    begun = time.monotonic()
    with open(log or os.devnull, "w", encoding="utf-8") as told:
        try:
            ended = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=told, text=True, timeout=limit, env={**os.environ, **env}
            )
        except subprocess.TimeoutExpired:
            return {"seconds": time.monotonic() - begun, "code": None, "stdout": ""}
    return {"seconds": time.monotonic() - begun, "code": ended.returncode, "stdout": ended.stdout}


# -- what starting costs ---------------------------------------------------------------------------------------------


def imports(record: Record, runs: int) -> None:
    """Wall time of fresh processes, one of each in turn, and which heavy modules they loaded."""
    settings = {"runs": runs}
    if record.has("imports", settings):
        return
    script = Path(sys.executable).with_name("headstart")
    shell = [str(script)] if script.exists() else HEADSTART
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import headstart": [sys.executable, "-c", "import headstart"],
        "headstart --help": [*shell, "--help"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _, (name, command) in itertools.product(range(runs + 1), commands.items()):  # the first turn warms the disk
        seconds[name].append(timed(command)["seconds"])
    ask = f"import sys; print(sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)"
    loads = {
        "import headstart": f"import headstart; {ask}",
        "headstart --help": f"from headstart.cli import main; main(['--help']); {ask}",
    }
    heavy = {}
    for name, code in loads.items():
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        heavy[name] = ended.stderr.strip()
    record.put("imports", settings, {"seconds": {n: s[1:] for n, s in seconds.items()}, "heavy": heavy})


# -- whether limits are kept -----------------------------------------------------------------------------------------


def budget(record: Record, data: Path, work: Path, runs: int) -> None:
    """`headstart solve` with little time, over targets and shelves that are empty, good, broken or asleep."""
    shelf = {
        "none": [],
        "one": ["--sources", str(sets.minilm())],
        "broken": ["--sources", str(sets.broken(work / "broken"))],
        "sleeping": ["--sources", str(sets.sleeping(work / "sleeping"))],
    }
    cells = list(itertools.product(TASKS, SHELVES, LIMITS))
    random.Random(0).shuffle(cells)
    for (name, size, tested), kind, minutes in cells[:runs]:
        key = f"budget/{name}/{size}/{kind}/{minutes}"
        settings = {"minutes": minutes}
        if record.has(key, settings):
            continue
        here = sets.cut(data, name, size, 500, work / "sets" / f"{name}-{size}-500")
        given = shelf[kind]
        if kind == "one" and here.modality == "image" and STARTER.is_dir():
            given = ["--sources", str(next(sets.folders_of(STARTER)))]
        folder = _empty(work / "budget")
        command = [*HEADSTART, "solve", str(here.train), *here.options(), *given, "--minutes", str(minutes), "--json"]
        command += ["--out", str(folder / "result"), *(["--test", str(here.test)] if tested else [])]
        limit = 60 * minutes
        ended = timed(command, limit=20 * limit, log=work / "budget.log", HEADSTART_HOME=str(folder / "home"))
        found = parsed(ended["stdout"])
        made = {
            "limit_seconds": limit,
            "seconds": round(ended["seconds"], 3),
            "over_seconds": round(ended["seconds"] - limit, 3),
            "held": ended["seconds"] <= limit + max(0.1 * limit, 5.0),
            "code": ended["code"],
            "valid": (folder / "result" / "headstart.json").exists(),
            "verdict": found.get("verdict"),
            "returned": found.get("returned"),
            "modality": here.modality,
            "load": os.getloadavg()[0],
        }
        if not made["valid"]:
            made["stderr"] = (work / "budget.log").read_text(encoding="utf-8")[-2000:]
            made["told"] = found.get("error")
        record.put(key, settings, made)
        shutil.rmtree(folder, ignore_errors=True)


# -- features --------------------------------------------------------------------------------------------------------


def features(record: Record, texts: int, repeats: int) -> None:
    """What `benchmarks/features.py` says, in a process of its own."""
    settings = {"texts": texts, "repeats": repeats}
    if record.has("features", settings):
        return
    command = [sys.executable, str(HERE / "features.py"), "--texts", str(texts), "--repeats", str(repeats)]
    ended = timed(command)
    found = parsed(ended["stdout"])
    record.put("features", settings, found or {"error": f"features.py ended with code {ended['code']}"})


# -- solve -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What the solve part is to do."""

    names: Sequence[str]
    sizes: Sequence[int]
    minutes: float
    test_rows: int
    tunes: Sequence[FineTune]
    setfit: str | None
    setfit_sizes: Sequence[int]
    image_encoder: Path | None
    steps: int | None
    keep: bool


def shelf_of(record: Record, data: Path, work: Path, tunes: Sequence[FineTune], image: Path | None) -> list[Path]:
    """MiniLM first, then the starter shelf, then what `headstart adapt` makes here."""
    shelf = [sets.minilm(), *([STARTER] if STARTER.is_dir() else [])]
    for tune in tunes:
        base = sets.minilm() if tune.base is None else image
        if base is None:
            say(f"{tune.name} is left out: no starter shelf lies in the package")
        elif (out := adapted(record, data, work, tune, base)).is_dir():
            shelf.append(out)
    return shelf


def adapted(record: Record, data: Path, work: Path, tune: FineTune, base: Path) -> Path:
    """The folder of a fine-tune by `headstart adapt`, made once; not there where that failed."""
    out = work / "shelf" / f"{tune.name}-{tune.per_class}-{tune.epochs}"
    key, settings = f"shelf/{tune.name}", {**asdict(tune), "from": base.name}
    if not (record.has(key, settings) and out.is_dir()):
        here = sets.cut(data, tune.data, tune.per_class, 1, work / "sets" / f"{tune.data}-{tune.per_class}-tune")
        column = ["--text", "text"] if here.modality == "text" else ["--image", "image"]
        command = [*HEADSTART, "adapt", str(here.train), "--label", "label", *column, "--source", str(base)]
        command += ["--method", "full_finetune", "--set", f"epochs={tune.epochs}", "--out", str(out)]
        log = work / f"{tune.name}.log"
        ended = timed([*command, "--overwrite", "--json"], log=log, HEADSTART_HOME=str(work / "home"))
        told = {"seconds": round(ended["seconds"], 2), "rows": here.rows, "adapted": parsed(ended["stdout"])}
        failed = {} if ended["code"] == 0 else {"error": failure(ended, log)}
        record.put(key, settings, {**told, **failed})
    return out


def solve(record: Record, data: Path, work: Path, plan: Plan) -> None:
    """Each set at each size: `solve` with its shelf, the plain recipe, SetFit; predictions of the same test rows."""
    cells = [(name, size) for size in plan.sizes for name in plan.names]
    shelf: list[Path] | None = None
    for name, size in cells:
        reason = sets.fits(data, name, size)
        key = f"solve/{name}/{size}"
        if reason:
            record.cells.pop(key, None)
            say(f"{key}: left out, {reason}")
            continue
        here = sets.cut(data, name, size, plan.test_rows, work / "sets" / f"{name}-{size}-{plan.test_rows}")
        about = {"test_rows": plan.test_rows}
        if not record.has(key, about):
            record.put(key, about, _about(here))
        shelf = shelf or shelf_of(record, data, work, plan.tunes, plan.image_encoder)
        settings = {**about, "minutes": plan.minutes, "shelf": [p.name for p in shelf]}
        if not record.has(f"{key}/headstart", settings):
            record.put(f"{key}/headstart", settings, _solved(here, shelf, work, plan))
        for form, python, model in _peers(here, plan):
            given = {**about, "steps": plan.steps, "model": model.name}
            if not record.has(f"{key}/{form}", given):
                record.put(f"{key}/{form}", given, _peer(here, form, python, model, work, plan))


def _about(here: sets.Cut) -> dict[str, Any]:
    """What scoring needs, so that the file is enough."""
    numbered: dict[str, int] = {}
    groups = [numbered.setdefault(key, len(numbered)) for key in here.inputs]
    fields = ("modality", "task", "metric", "rows", "size")
    told = {name: getattr(here, name) for name in fields}
    return {**told, "classes": list(here.classes), "truth": list(here.truth), "groups": groups}


def _solved(here: sets.Cut, shelf: Sequence[Path], work: Path, plan: Plan) -> dict[str, Any]:
    folder = _empty(work / "cells" / f"{here.name}-{here.size}")
    given = [word for place in shelf for word in ("--sources", str(place))]
    command = [*HEADSTART, "solve", str(here.train), "--test", str(here.test), *here.options(), *given]
    command += ["--minutes", str(plan.minutes), "--out", str(folder / "result"), "--json"]
    log, home = folder.with_suffix(".log"), str(folder / "home")
    ended = timed(command, limit=120 * plan.minutes + 120, log=log, HEADSTART_HOME=home)
    summary = parsed(ended["stdout"])
    if not summary or "error" in summary:
        return {"error": failure(ended, log), "seconds": round(ended["seconds"], 2)}
    told = folder / "predictions.parquet"
    command = [*HEADSTART, "predict", str(folder / "result"), str(here.test), "--out", str(told)]
    predicted = timed(command, log=log, HEADSTART_HOME=home)
    if predicted["code"] != 0:
        return {"error": f"predict: {failure(predicted, log)}", "summary": summary}
    import pyarrow.parquet as pq

    receipt, saved = (
        json.loads((folder / "result" / name).read_text(encoding="utf-8"))
        for name in ("receipt.json", "headstart.json")
    )
    found = {
        "seconds": round(ended["seconds"], 2),
        "load": os.getloadavg()[0],
        "predict_seconds": round(predicted["seconds"], 2),
        "summary": summary,
        "members": {m["name"]: m["weight"] for m in saved["members"]},
        "warnings": receipt.get("warnings", []),
        "predictions": pq.read_table(told, columns=["label"])["label"].to_pylist(),
    }
    if not plan.keep:
        shutil.rmtree(folder, ignore_errors=True)
    return found


def _peers(here: sets.Cut, plan: Plan) -> Iterator[tuple[str, str, Path]]:
    """The other ways that there are for a set, each with its interpreter and the one encoder."""
    if here.modality == "text":
        yield "recipe", sys.executable, sets.minilm()
        if plan.setfit and here.size in plan.setfit_sizes:
            yield "setfit", plan.setfit, sets.minilm()
    elif here.modality == "image" and plan.image_encoder is not None:
        yield "recipe", sys.executable, plan.image_encoder


def _peer(here: sets.Cut, form: str, python: str, model: Path, work: Path, plan: Plan) -> dict[str, Any]:
    out, log = work / f"{form}.json", work / f"{form}.log"
    out.unlink(missing_ok=True)
    command = [python, str(HERE / "journey_peers.py"), form, "--train", str(here.train), "--test", str(here.test)]
    command += ["--model", str(model), "--out", str(out), *(["--steps", str(plan.steps)] if plan.steps else [])]
    ended = timed(command, log=log)
    if not out.exists():
        return {"error": failure(ended, log), "seconds": round(ended["seconds"], 2)}
    return {"seconds": round(ended["seconds"], 2), **json.loads(out.read_text(encoding="utf-8"))}


def parsed(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def failure(ended: Mapping[str, Any], log: Path) -> str:
    if ended["code"] is None:
        return f"stopped after {ended['seconds']:.0f} s"
    told = parsed(ended["stdout"]).get("error") or {}
    lines = log.read_text(encoding="utf-8").strip().splitlines() if log.exists() else []
    return f"code {ended['code']}: {told.get('what') or (lines[-1] if lines else 'nothing was said')}"


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


# -- the command -----------------------------------------------------------------------------------------------------


def _has_setfit(python: str) -> bool:
    look = "import importlib.util, sys; sys.exit(importlib.util.find_spec('setfit') is None)"
    return subprocess.run([python, "-c", look], capture_output=True).returncode == 0


def _image_encoder(named: Path | None) -> Path | None:
    """The encoder of the plain recipe on images."""
    if named is not None:
        return named
    return next(sets.folders_of(STARTER), None) if STARTER.is_dir() else None


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("journey.json"), help="raw results; gone on with if there")
    parser.add_argument("--work", type=Path, default=Path("journey-work"), help="folder for cut sets and made sources")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the sets")
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)}; or report, or brief")
    parser.add_argument("--quick", action="store_true", help="try everything on little, in three minutes")
    parser.add_argument("--sets", default="")
    parser.add_argument("--sizes", default="8,32,128", help="labels of each class; regression: 50, 200, 1000 rows")
    parser.add_argument("--minutes", type=float, default=2.0, help="for each solve")
    parser.add_argument("--test-rows", type=int, default=500)
    parser.add_argument("--runs", type=int, default=54, help="of the budget part, at most 72")
    parser.add_argument("--setfit-python", default=sys.executable, help="an interpreter that has setfit")
    parser.add_argument("--setfit-sizes", default="8,32", help="SetFit is for few labels")
    parser.add_argument("--image-encoder", type=Path, help="of the plain recipe; default: of the starter shelf")
    parser.add_argument("--keep", action="store_true", help="keep the results of each solve")
    return parser.parse_args()


def main() -> int:
    asked = _asked()
    parts = [p for p in asked.only.split(",") if p]
    if wrong := sorted(set(parts) - {*PARTS, "report", "brief"}):
        print(f"error: there is no part {', '.join(wrong)}; use {', '.join(PARTS)}, report, brief", file=sys.stderr)
        return 2
    if {"budget", "solve"} & set(parts) and not (asked.data / "CARD.md").exists():
        print(f"error: the sets are not in `{asked.data}`; give their folder with --data", file=sys.stderr)
        return 2
    os.environ["HF_HUB_OFFLINE"] = "1"
    record, work = Record(asked.json.absolute()), asked.work.absolute() / ("quick" if asked.quick else "full")
    work.mkdir(parents=True, exist_ok=True)
    if "imports" in parts:
        imports(record, 3 if asked.quick else 10)
    if "budget" in parts:
        budget(record, asked.data, work, 4 if asked.quick else asked.runs)
    if "features" in parts:
        features(record, *((48, 1) if asked.quick else (512, 5)))
    if "solve" in parts:
        setfit = asked.setfit_python if _has_setfit(asked.setfit_python) else None
        if setfit is None:
            say("SetFit is left out: not installed here; name an interpreter that has it with --setfit-python")
        names = asked.sets or ("trec6,penguins" if asked.quick else ",".join(SETS))
        plan = Plan(
            names=names.split(","),
            sizes=[8] if asked.quick else [int(s) for s in asked.sizes.split(",")],
            minutes=min(asked.minutes, 0.5) if asked.quick else asked.minutes,
            test_rows=100 if asked.quick else asked.test_rows,
            tunes=QUICK_TUNES if asked.quick else FINE_TUNES,
            setfit=setfit,
            setfit_sizes=[int(s) for s in asked.setfit_sizes.split(",") if s],
            image_encoder=_image_encoder(asked.image_encoder),
            steps=10 if asked.quick else None,
            keep=asked.keep,
        )
        solve(record, asked.data, work, plan)
    print((brief if "brief" in parts else report)(record.begun))
    return 0


if __name__ == "__main__":
    sys.exit(main())
