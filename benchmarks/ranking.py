"""Time and memory of LogME, the shrunk H-score and GBC against other people's code, on the same features in one run.

    python benchmarks/ranking.py --json ranking.json --work WORK --peer-python PYTHON --logme LogME
        --tllib Transfer-Learning-Library --gbc gbc.py [--rows 500,5000,50000] [--widths 384,768,2048]
        [--classes 2,10,100] [--threads 1] [--rounds 2]

Each figure comes from a fresh process (`ranking_forms.py`), and the processes of one shape take turns, `--rounds`
times. Ours are the three scores from one view, float32 features included; the others' are the fastest LogME, the
fastest shrunk H-score and GBC, each called by itself. Times are minima over all calls, in brackets the ratio of each
round; memory is the peak above the features. What is not installed or not given is left out, with the reason: PYTHON
needs transformer-ranker, numba and scikit-learn; LogME is a clone of thuml/LogME, Transfer-Learning-Library one of
thuml/Transfer-Learning-Library, gbc.py `stable_transfer/transferability/gbc.py` of google-research.

Raw results go to the JSON file after every process, and what stands there is not done again; `--only report` prints
the tables of a file.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from rank_figures import table

from journey import Record, say, timed

FORMS = Path(__file__).resolve().with_name("ranking_forms.py")
COMMAND = (
    "python benchmarks/ranking.py --json ranking.json --work WORK --peer-python PYTHON"
    " --logme LogME --tllib Transfer-Learning-Library --gbc gbc.py"
)
THREE = "logme+shrunk_h_score+gbc"
PEERS = {
    "logme": ("thuml:logme", "transformer_ranker:logme", "tllib:logme"),
    "shrunk_h_score": ("transformer_ranker:shrunk_h_score", "tllib:shrunk_h_score"),
    "gbc": ("google:gbc",),
    "transrate": ("tllib:transrate",),
}
PACKAGES = {
    "thuml:logme": "numba", "tllib:logme": "numba", "tllib:shrunk_h_score": "sklearn",
    "transformer_ranker:logme": "transformer_ranker", "transformer_ranker:shrunk_h_score": "transformer_ranker",
}  # fmt: skip
OURS = (f"ours:{THREE}", *(f"ours:{name}" for name in PEERS), "pass", "gram")
BRUTE = tuple(f"brute:{name}" for name in THREE.split("+"))
TALL = 20  # N >= 20 D counts as many more rows than dimensions
TIME, MEMORY, EQUAL, FLOOR = 1 / 5, 1 / 15, 1e-8, 0.9  # what is to be reached
Cells = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is measured, and with what."""

    shapes: Sequence[tuple[int, int, int]]
    threads: int
    rounds: int
    seconds: float
    repeats: int
    brute_rows: int
    python: str
    places: Mapping[str, Path | None]

    def forms(self, rows: int) -> Iterator[str]:
        """In the order in which they take turns; those that cannot run are left out."""
        checked = BRUTE if rows <= self.brute_rows and self.threads == 1 else ()
        for name in (*OURS, *(one for some in PEERS.values() for one in some), *checked):
            if self.lacking(name) is None:
                yield name

    def lacking(self, form: str) -> str | None:
        """Why a form cannot run, or None."""
        whose = form.partition(":")[0]
        if whose in self.places:
            place = self.places[whose]
            if place is None:
                return f"--{'gbc' if whose == 'google' else 'logme' if whose == 'thuml' else whose} was not given"
            if not place.exists():
                return f"`{place}` is not there"
        package = PACKAGES.get(form)
        return None if package is None or has(self.python, package) else f"`{self.python}` has no {package}"


@cache
def has(python: str, package: str) -> bool:
    look = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    return subprocess.run([python, "-c", look], capture_output=True).returncode == 0


def drawn(rows: int, width: int, classes: int, work: Path) -> tuple[Path, Path]:
    """Features and labels of Gaussian classes, and one column far from zero, as files."""
    features, labels = work / f"features-{rows}-{width}-{classes}.npy", work / f"labels-{rows}-{classes}.npy"
    if not features.exists():
        chance = np.random.default_rng(0)
        y = np.arange(rows) % classes
        f = chance.standard_normal((rows, width), dtype=np.float32)
        f += (0.2 * chance.standard_normal((classes, width))).astype(np.float32)[y]
        f[:, 0] += 50
        np.save(labels, y)
        np.save(features, f)
    return features, labels


def measure(record: Record, work: Path, plan: Plan) -> None:
    """Every form of every shape, round by round."""
    pools = ("OMP", "OPENBLAS", "MKL", "NUMBA", "NUMEXPR")
    env = {f"{pool}_NUM_THREADS": str(plan.threads) for pool in pools}
    for rows, width, classes in plan.shapes:
        features: Path | None = None
        for turn in range(plan.rounds):
            for name in plan.forms(rows):
                brute = name.startswith("brute")
                if brute and turn:
                    continue
                key = f"{rows}/{width}/{classes}/{plan.threads}/{name}/{turn}"
                repeats = 1 if brute else plan.repeats
                settings = {"seconds": plan.seconds, "repeats": repeats}
                if record.has(key, settings):
                    continue
                features, labels = drawn(rows, width, classes, work)
                whose, out, log = name.partition(":")[0], work / "form.json", work / "form.log"
                out.unlink(missing_ok=True)
                python = sys.executable if whose in ("ours", "brute", "pass", "gram") else plan.python
                place = plan.places.get(whose)
                command = [python, str(FORMS), name, "--features", str(features), "--labels", str(labels)]
                command += ["--out", str(out), "--seconds", str(plan.seconds), "--repeats", str(repeats)]
                command += ["--threads", str(plan.threads), *(["--place", str(place)] if place else [])]
                ended = timed(command, limit=3600, log=log, **env)
                load = {"load": os.getloadavg()[0]}
                if out.exists():
                    record.put(key, settings, {**load, **_read(out)})
                else:
                    lines = log.read_text(encoding="utf-8").strip().splitlines()
                    record.put(key, settings, {"error": f"code {ended['code']}: {lines[-1] if lines else 'nothing'}"})
        if features is not None:
            features.unlink()


def _read(path: Path) -> dict[str, Any]:
    import json

    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


# -- the tables ------------------------------------------------------------------------------------------------------


class Shape:
    """The figures of one shape and number of threads."""

    def __init__(self, cells: Cells, key: str) -> None:
        self.rows, self.width, self.classes, self.threads = (int(n) for n in key.split("/"))
        self.rounds: dict[str, list[Mapping[str, Any]]] = {}
        for name, cell in cells.items():
            if name.startswith(f"{key}/") and "error" not in cell:
                self.rounds.setdefault(name.split("/")[4], []).append(cell)

    def seconds(self, form: str, turn: int | None = None) -> float | None:
        """The least of all calls, or of one round."""
        some = self.rounds.get(form, [])
        some = some if turn is None else some[turn : turn + 1]
        return min((min(cell["seconds"]) for cell in some), default=None)

    def extra(self, form: str) -> float | None:
        """Bytes above the features; the median over rounds."""
        told = [cell["extra_bytes"] for cell in self.rounds.get(form, []) if cell["extra_bytes"] is not None]
        return statistics.median(told) if told else None

    def fastest(self, name: str) -> str | None:
        """The peer's form of one score that took least."""
        some = {form: s for form in PEERS[name] if (s := self.seconds(form)) is not None}
        return min(some, key=lambda form: some[form], default=None)

    def rivals(self) -> list[str] | None:
        """The fastest three, or None where one of the scores has no peer."""
        some = [self.fastest(name) for name in THREE.split("+")]
        return None if None in some else [s for s in some if s is not None]

    def three(self, turn: int | None = None) -> float | None:
        """Our time over the sum of the fastest three."""
        mine, rivals = self.seconds(f"ours:{THREE}", turn), self.rivals()
        if mine is None or rivals is None:
            return None
        each = [self.seconds(form, turn) for form in rivals]
        return None if None in each else mine / sum(s for s in each if s is not None)

    def memory(self) -> float | None:
        """Our peak over the largest of the fastest three, which run one after another."""
        mine, rivals = self.extra(f"ours:{THREE}"), self.rivals()
        theirs = [b for form in rivals or () if (b := self.extra(form)) is not None]
        return mine / max(theirs) if mine is not None and theirs and max(theirs) else None

    def share(self, part: str) -> float | None:
        """Of our time what the pass takes alone, or the symmetric products in it ("gram"), where there is a pass."""
        mine, least = self.seconds(f"ours:{THREE}"), self.seconds(part)
        return least / mine if mine and least and self.rows > self.width else None

    def difference(self) -> float | None:
        """The largest relative difference from the formulas as written."""
        mine = self.rounds.get(f"ours:{THREE}")
        told = [self.rounds.get(form) for form in BRUTE]
        if not mine or not all(told):
            return None
        pairs = zip(mine[0]["values"], (t[0]["values"][0] for t in told if t), strict=True)
        return max(0.0 if a == b else abs(a - b) / (abs(b) or abs(a)) for a, b in pairs)  # GBC may be 0 on both sides

    def alone(self, name: str, peer: str) -> float | None:
        """Our time over the peer's, each asked for this score alone."""
        mine, theirs = self.seconds(f"ours:{name}"), self.seconds(peer)
        return mine / theirs if mine and theirs else None

    @property
    def name(self) -> str:
        return f"{self.rows}, {self.width}, {self.classes}"


def shapes_of(cells: Cells) -> list[Shape]:
    keys = dict.fromkeys("/".join(key.split("/")[:4]) for key in cells if key.count("/") == 5)
    found = [Shape(cells, key) for key in keys]
    return sorted(found, key=lambda s: (s.threads, s.rows, s.width, s.classes))


def report(document: Mapping[str, Any], left_out: Mapping[str, str]) -> str:
    """Markdown, from the file alone."""
    cells: Cells = document["cells"]
    shapes, machine = shapes_of(cells), document["machine"]
    told = [f"Made with `{COMMAND}`.", ""]
    told += [f"Machine: {machine['cores']} cores, {machine['system']}, Python {machine['python']}."]
    loads = [cell["load"] for cell in cells.values() if "load" in cell]
    if loads:
        told += [f"Load, median and largest: {statistics.median(loads):.1f}, {max(loads):.1f}."]
    for threads in sorted({s.threads for s in shapes}):
        some = [s for s in shapes if s.threads == threads]
        told += ["", f"## {threads} thread{'s' if threads > 1 else ''}", "", _together(some), "", _alone(some)]
    told += ["", *_reached([s for s in shapes if s.threads == 1])]
    told += [f"- left out: `{form}`, {reason}" for form, reason in left_out.items()]
    told += [f"- failed: `{key}`, {cell['error']}" for key, cell in cells.items() if "error" in cell]
    return "\n".join(told)


def _ms(seconds: float | None) -> str:
    return "–" if seconds is None else f"{1e3 * seconds:.1f}" if seconds < 0.1 else f"{1e3 * seconds:.0f}"


def _mb(bytes_: float | None) -> str:
    return "–" if bytes_ is None else f"{bytes_ / 2**20:.1f}"


def _times(ratio: float | None) -> str:
    """A ratio below 1 as how many times less."""
    return "–" if ratio is None else f"{1 / max(ratio, 1e-9):.1f}"


def _together(shapes: Sequence[Shape]) -> str:
    rows = []
    for s in shapes:
        rivals = s.rivals() or []
        rounds = [r for turn in range(len(s.rounds.get(f"ours:{THREE}", []))) if (r := s.three(turn)) is not None]
        spread = f" [{_times(max(rounds))}, {_times(min(rounds))}]" if rounds else ""
        difference = s.difference()
        shares = ["–" if (share := s.share(part)) is None else f"{share:.2f}" for part in ("pass", "gram")]
        named = " + ".join(f"{form.partition(':')[0]} {_ms(s.seconds(form))}" for form in rivals) or "–"
        largest = max((b for form in rivals if (b := s.extra(form)) is not None), default=None)
        rows.append(
            [
                s.name,
                _ms(s.seconds(f"ours:{THREE}")),
                named,
                _times(s.three()) + spread,
                f"{_mb(s.extra(f'ours:{THREE}'))} / {_mb(largest)}",
                _times(s.memory()),
                *shares,
                "–" if difference is None else f"{difference:.0e}",
            ]
        )
    head = ["N, D, C", "ours, ms", "fastest LogME + H + GBC, ms", "times faster [by round]", "MB: ours / theirs",
            "times less", "share of the pass", "of its products", "from float64 as written"]  # fmt: skip
    return table(head, rows)


def _alone(shapes: Sequence[Shape]) -> str:
    forms = [(name, peer) for name, peers in PEERS.items() for peer in peers]
    there = [(name, peer) for name, peer in forms if any(s.alone(name, peer) for s in shapes)]
    rows = []
    for s in shapes:
        each = [f"{_ms(s.seconds(peer))} ({_times(s.alone(name, peer))})" for name, peer in there]
        rows.append([s.name, *(_ms(s.seconds(f"ours:{name}")) for name in PEERS), *each])
    head = ["N, D, C", *(f"our {name}, ms" for name in PEERS), *(f"{p} (times ours)" for _, p in there)]
    return table(head, rows)


def _reached(shapes: Sequence[Shape]) -> list[str]:
    """Each bar: in how many shapes it is kept, and where it is missed most."""

    def line(what: str, found: Mapping[str, float | None], kept: float, *, above: bool = False) -> str:
        known = {name: value for name, value in found.items() if value is not None}
        if not known:
            return f"- {what}: not measured"
        good = sum(value >= kept if above else value <= kept for value in known.values())
        worst = (min if above else max)(known, key=lambda name: known[name])
        return f"- {what}: in {good} of {len(known)} shapes; worst {known[worst]:.2g} at {worst}"

    gbc = PEERS["gbc"][0]
    return [
        "One thread:",
        line(f"three scores in ≤ {TIME:.2f} of the time", {s.name: s.three() for s in shapes}, TIME),
        line(f"in ≤ {MEMORY:.3f} of the memory", {s.name: s.memory() for s in shapes}, MEMORY),
        line(f"equal to float64 as written to {EQUAL:.0e}", {s.name: s.difference() for s in shapes}, EQUAL),
        *(
            line(
                f"≥ {FLOOR} of the time in {what}, N ≥ {TALL} D",
                {s.name: s.share(part) for s in shapes if s.rows >= TALL * s.width},
                FLOOR,
                above=True,
            )
            for part, what in (("pass", "the pass"), ("gram", "its symmetric products"))
        ),
        line("GBC alone no slower than the peer (ratio ≤ 1)", {s.name: s.alone("gbc", gbc) for s in shapes}, 1.0),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("ranking.json"), help="raw results; gone on with if there")
    parser.add_argument("--work", type=Path, default=Path("ranking-work"), help="folder for features")
    parser.add_argument("--peer-python", default=sys.executable, help="an interpreter that has the others' packages")
    parser.add_argument("--logme", type=Path, help="clone of thuml/LogME")
    parser.add_argument("--tllib", type=Path, help="clone of thuml/Transfer-Learning-Library")
    parser.add_argument("--gbc", type=Path, help="gbc.py of google-research")
    parser.add_argument("--rows", default="500,5000,50000")
    parser.add_argument("--widths", default="384,768,2048")
    parser.add_argument("--classes", default="2,10,100")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10.0, help="for the calls of one process")
    parser.add_argument("--repeats", type=int, default=5, help="calls of one process, at most")
    parser.add_argument("--brute-rows", type=int, default=5000, help="float64 as written up to so many rows")
    parser.add_argument("--only", choices=("report",))
    asked = parser.parse_args()
    rows, widths, classes = ([int(n) for n in text.split(",")] for text in (asked.rows, asked.widths, asked.classes))
    plan = Plan(
        shapes=[(n, d, c) for n in rows for d in widths for c in classes],
        threads=asked.threads,
        rounds=asked.rounds,
        seconds=asked.seconds,
        repeats=asked.repeats,
        brute_rows=asked.brute_rows,
        python=asked.peer_python,
        places={"thuml": asked.logme, "tllib": asked.tllib, "google": asked.gbc},
    )
    record = Record(asked.json.absolute())
    left_out: dict[str, str] = {}
    if asked.only is None:
        peers = [form for some in PEERS.values() for form in some]
        left_out = {form: reason for form in peers if (reason := plan.lacking(form))}
        for form, reason in left_out.items():
            say(f"{form} is left out: {reason}")
        asked.work.mkdir(parents=True, exist_ok=True)
        measure(record, asked.work.absolute(), plan)
    print(report(record.begun, left_out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
