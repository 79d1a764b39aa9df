"""Published rank correlations of transferability scores, found again from the published scores and accuracies.

    python benchmarks/records.py [--data ../shared/data/history] [--json records.json]

Two of the histories hold scores beside fine-tuned results: ten ImageNet models on vision sets (thuml's
Transfer-Learning-Library c4aa59e, examples/model_selection/README.md), and fifteen source sets or nine architectures on
MedMNIST (DovileDo/transferability-in-medical-imaging 7e308c4, the printed table of each notebook, which turns most
scores round for architectures). The others hold results alone; `recall.py` uses them. For each target and score: the
figure as published, and the one that follows from the scores by `rank_figures.tau` or Pearson's formula; a difference
beyond the published digits is shown. Then what the scores are worth: weighted tau and regret@k over targets, with 95 %
bootstrap intervals over targets.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rank_figures import interval, regret, span, table, tau

from journey import DATA

COMMAND = "python benchmarks/records.py"
# target: (Pearson, weighted tau) of HScore, LEEP, LogME, NCE, as the README has them
TLLIB = {
    "Aircraft": ((0.688, 0.664), (0.127, -0.264), (0.582, 0.595), (0.173, 0.002)),
    "CIFAR10": ((0.839, 0.800), (0.604, 0.638), (0.733, 0.785), (0.786, 0.714)),
    "CIFAR100": ((0.815, 0.775), (0.513, 0.659), (0.698, 0.790), (0.705, 0.654)),
    "DTD": ((0.532, 0.416), (0.217, -0.004), (0.617, 0.550), (0.471, 0.083)),
    "SUN397": ((0.913, 0.918), (0.428, 0.581), (0.824, 0.748), (0.782, 0.873)),
}
TLLIB_SCORES = ("HScore", "LEEP", "LogME", "NCE")
# target: weighted tau of logme, sfda, leep, parc, ncti, nleep, lp, fu, as the notebooks print them
MED_SCORES = ("logme", "sfda", "leep", "parc", "ncti", "nleep", "lp", "fu")
MED_TURNED = MED_SCORES[2:]  # on architectures the notebook takes 1 - score, and maximum less score, of these
MED_DATASET = {
    "bloodmnist": (0.107977, 0.296137, 0.482026, 0.298958, 0.068120, 0.748447, 0.534376, 0.575533),
    "dermamnist": (0.519961, -0.271453, 0.229000, 0.340917, 0.192231, 0.437743, 0.538884, 0.738717),
    "organamnist": (0.255447, -0.001884, 0.175358, 0.271402, -0.264714, 0.322740, 0.459053, 0.447535),
    "organcmnist": (0.467316, 0.427559, 0.403950, 0.499248, 0.457477, 0.465912, 0.513068, -0.175234),
    "pathmnist": (0.505637, 0.380054, 0.560906, 0.538126, 0.403055, 0.568479, 0.471522, 0.761972),
    "retinamnist": (0.332362, 0.267265, 0.344523, 0.501794, 0.471825, 0.552549, 0.740219, 0.542313),
    "tissuemnist": (0.584672, 0.460064, 0.422373, -0.014328, 0.617896, 0.577602, 0.529376, 0.493466),
}
MED_MODEL = {
    "bloodmnist": (-0.203377, 0.277793, 0.483202, -0.009153, 0.317857, 0.349733, 0.111411, 0.158280),
    "dermamnist": (-0.151932, 0.232702, 0.454499, 0.462705, -0.008697, 0.384153, 0.238270, 0.189262),
    "organamnist": (0.359640, 0.329108, 0.526634, 0.603100, -0.000281, 0.517131, 0.735482, 0.041450),
    "organcmnist": (0.293151, 0.115727, 0.103486, 0.088371, 0.006575, 0.037067, 0.101785, 0.284787),
    "pathmnist": (-0.501841, 0.093174, 0.143621, -0.752770, -0.391412, -0.507592, -0.503156, 0.475207),
    "retinamnist": (0.285787, 0.399208, -0.089599, -0.179548, 0.092930, -0.123755, 0.602925, 0.092474),
    "tissuemnist": (-0.033209, -0.149919, 0.194452, 0.207550, -0.148513, -0.005891, 0.294905, 0.245687),
}


@dataclass(frozen=True, slots=True)
class Figure:
    """One published figure, and the one that follows from the records; None where a side is missing."""

    origin: str
    target: str
    score: str
    what: str
    published: float
    found: float | None
    digits: float

    @property
    def agrees(self) -> bool:
        """Within the last published digit: of scores that were rounded themselves, within two."""
        return self.found is not None and abs(self.found - self.published) <= self.digits


def read(file: Path, axis: str | None = None) -> dict[str, dict[str, dict[str, float]]]:
    """target: method: name: value. Names are sources or models, whichever varies."""
    with file.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    if axis is not None:
        rows = [row for row in rows if json.loads(row["extra"])["axis"] == axis]
    by = "source" if len({row["source"] for row in rows}) > 1 else "model"
    found: dict[str, dict[str, dict[str, float]]] = {}
    for row in rows:
        found.setdefault(row["target"], {}).setdefault(row["method"], {})[row[by]] = float(row["value"])
    return found


def pairs(known: Mapping[str, Mapping[str, float]], score: str) -> tuple[list[float], list[float]]:
    """Scores and fine-tuned results of the names that have both."""
    truth, said = known["finetune"], known.get(score, {})
    names = [name for name in truth if name in said]
    return [said[n] for n in names], [truth[n] for n in names]


def tllib(folder: Path) -> Iterator[Figure]:
    known = read(folder / "tllib_model_selection.csv")
    for target, published in TLLIB.items():
        for score, (pearson, weighted) in zip(TLLIB_SCORES, published, strict=True):
            said, truth = pairs(known[target], score)
            figures = (("Pearson", pearson, np.corrcoef(said, truth)[0, 1]), ("tau", weighted, tau(said, truth)))
            for what, told, found in figures:
                yield Figure("tllib", target, score, what, told, float(found), 2e-3)


def medmnist(folder: Path, axis: str, table_of: Mapping[str, Sequence[float]]) -> Iterator[Figure]:
    known = read(folder / "medmnist_transfer.csv", axis)
    for target, published in table_of.items():
        for score, told in zip(MED_SCORES, published, strict=True):
            said, truth = pairs(known[target], score)
            turned = -1 if axis == "model" and score in MED_TURNED else 1
            found = tau([turned * x for x in said], truth) if len(said) > 1 else None
            yield Figure(f"medmnist, {axis}", target, score, "tau", told, found, 1e-6)


def worth(folder: Path) -> str:
    """What each score is good for, over targets."""
    tables = {
        "tllib": (read(folder / "tllib_model_selection.csv"), TLLIB_SCORES, 1.0),
        "medmnist, dataset": (read(folder / "medmnist_transfer.csv", "dataset"), MED_SCORES, 100.0),
        "medmnist, model": (read(folder / "medmnist_transfer.csv", "model"), MED_SCORES, 1.0),
    }
    rows = []
    for origin, (known, scores, points) in tables.items():
        for score in scores:
            each = [pairs(by_method, score) for by_method in known.values() if score in by_method]
            each = [(a, b) for a, b in each if len(a) >= 5]
            if each:
                regrets = [span(interval([points * regret(a, b, k) for a, b in each])) for k in (1, 3)]
                rows.append([origin, score, str(len(each)), span(interval([tau(a, b) for a, b in each])), *regrets])
    return table(["records", "score", "targets", "tau", "regret@1, points", "regret@3, points"], rows)


def report(figures: Sequence[Figure], worth_of: str) -> str:
    rows = []
    for origin in dict.fromkeys(f.origin for f in figures):
        for what in dict.fromkeys(f.what for f in figures if f.origin == origin):
            some = [f for f in figures if f.origin == origin and f.what == what]
            far = max((abs(f.found - f.published) for f in some if f.found is not None and f.agrees), default=0.0)
            rows.append([origin, what, f"{sum(f.agrees for f in some)} of {len(some)}", f"{far:.1e}"])
    told = [table(["records", "figure", "found again", "largest difference among them"], rows), ""]
    told += [
        f"- not found again: {f.origin}, {f.score} on {f.target}: {f.what} published as {f.published:.3f}, "
        + (f"{f.found:.3f} from the scores as printed" if f.found is not None else "and the scores are not there")
        for f in figures
        if not f.agrees
    ]
    return "\n".join([f"Made with `{COMMAND}`.", "", *told, "", "What the scores are worth:", "", worth_of])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA / "history")
    parser.add_argument("--json", type=Path, help="also every figure, as JSON")
    asked = parser.parse_args()
    if not (asked.data / "tllib_model_selection.csv").exists():
        print(f"error: the histories are not in `{asked.data}`; give their folder with --data", file=sys.stderr)
        return 2
    figures = [*tllib(asked.data)]
    for axis, published in (("dataset", MED_DATASET), ("model", MED_MODEL)):
        figures += medmnist(asked.data, axis, published)
    if asked.json:
        fields: list[dict[str, Any]] = [{k: getattr(f, k) for k in Figure.__slots__} for f in figures]
        asked.json.write_text(json.dumps(fields, indent=1), encoding="utf-8")
    print(report(figures, worth(asked.data)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
