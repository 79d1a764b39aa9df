"""One estimator on one table of features, in a process of its own: its times, its peak memory, and what it says.

    python benchmarks/ranking_forms.py FORM --features F.npy --labels L.npy --out FILE.json

`ranking.py` calls it, with this interpreter or with one that has the other packages. Forms: `ours:NAME[+NAME…]`, our
estimators from one view; `brute:NAME`, the formula in float64 as written; `pass`, the moments that ours need, alone;
`gram`, the symmetric products alone;
`thuml:logme`; `tllib:logme|shrunk_h_score|transrate`; `transformer_ranker:logme|shrunk_h_score`; `google:gbc`. The
code of others is loaded from where the user has it (`--place`), and called as its authors say. The first call is the
one whose memory is told: the peak of the resident set above what it was once the features lay in memory and everything
was imported and had run on a few rows. Time is told of every call.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Call = Callable[[Array, Array], list[float]]
Made = Callable[[Array, Array], Call]  # sees the features first, for what is not to be measured
BLOCK = 256  # rows of a symmetric product, as in `Moments.of`


# -- ours ------------------------------------------------------------------------------------------------------------


def ours(names: str) -> Made:
    def made(features: Array, labels: Array) -> Call:
        from dataclasses import replace

        from headstart import catalogue
        from headstart.testing.ranking_estimators import seen

        kept = {"chance": "kept"}  # as published, and as the other side has it
        given: dict[str, dict[str, Any]] = {
            "gbc": kept,
            "shrunk_h_score": kept,
            "transrate": {"permutations": 0, "distortion": 1e-4},
        }
        methods = [catalogue.entry("ranking.estimators", n).load()(**given.get(n, {})) for n in names.split("+")]
        view = seen(methods[0], features, labels, int(labels.max()) + 1)
        compiled(features, labels)

        def call(f: Array, y: Array) -> list[float]:
            fresh = replace(view, given=f, known=y, kept={})
            return [m(replace(fresh, needs=m.needs)).value for m in methods]

        return call

    return made


def compiled(features: Array, labels: Array) -> None:
    """Loads the kernels that so many features are summed up by, and compiles what is not yet on the disk."""
    from headstart.numerics.moments import Moments, pays_to_compile

    if pays_to_compile(features):
        from headstart.numerics.sums import fourth

        for gram in (True, False):
            Moments.of(features[:64], labels[:64], int(labels.max()) + 1, gram=gram, many=True)
        fourth(features[:64], *np.ones((2, features.shape[1])))


def passed(features: Array, labels: Array) -> Call:
    """Our one pass over the rows: their Gram matrix, and sums by class."""
    from headstart.numerics.moments import Moments

    compiled(features, labels)
    classes = int(labels.max()) + 1
    return lambda f, y: [float(Moments.of(f, y, classes).squares[0])]


def gram(features: Array, labels: Array) -> Call:
    """What a pass is made of above all: x'x of the float64 blocks, which are made before the clock starts."""
    from scipy.linalg.blas import dsyrk

    del labels
    blocks = [features[at : at + BLOCK].astype(np.float64) for at in range(0, len(features), BLOCK)]

    def call(f: Array, y: Array) -> list[float]:
        del f, y
        total = np.zeros((blocks[0].shape[1],) * 2, order="F")
        for block in blocks:
            total = dsyrk(1.0, block.T, beta=1.0, c=total, overwrite_c=True)
        return [float(total[0, 0])]

    return call


def plain(score: Callable[[Array, Array], float]) -> Made:
    """A form with nothing to prepare."""

    def made(features: Array, labels: Array) -> Call:
        del features, labels
        return lambda f, y: [float(score(f, y))]

    return made


# -- the formulas as written -----------------------------------------------------------------------------------------


def brute_logme(f: Array, y: Array, iterations: int = 20_000, tolerance: float = 1e-13) -> float:
    """An SVD of the centred features, all D eigenvalues, and one class after the other."""
    f = f.astype(np.float64) - f.mean(axis=0, dtype=np.float64)
    f *= np.sqrt(len(f) / np.square(f).sum())
    n = len(f) - 1
    u, s, _ = np.linalg.svd(f, full_matrices=False)
    s = np.where(s > 1e-7 * s[0], s, 0) ** 2
    rank, total = int((s > 0).sum()), 0.0
    for c in range(int(y.max()) + 1):
        t = (y == c) - (y == c).mean()
        p = np.square(u.T @ t) * (s > 0)
        rest, ratio = max(t @ t - p.sum(), 0.0) if rank < n else 0.0, 1.0
        for _ in range(iterations):
            gamma, size = (s / (s + ratio)).sum(), (p * s / (s + ratio) ** 2).sum()
            free = n - rank + (ratio / (s + ratio))[s > 0].sum()  # n - gamma, without cancellation
            before = ratio
            ratio = gamma / size / (free / (rest + (p * (ratio / (s + ratio)) ** 2).sum()))
            ratio = min(max(ratio, 1e-12), 1e12)
            if abs(ratio - before) <= tolerance * before:
                break
        loss = rest + (p * ratio / (s + ratio)).sum()
        total += -0.5 * (np.log(2 * np.pi * loss / n) + 1 + np.log1p(s / ratio).sum() / n)
    return float(total / (y.max() + 1))


def brute_h(f: Array, y: Array) -> float:
    """scikit-learn's Ledoit-Wolf covariance of standardised features, and a pseudo-inverse."""
    from sklearn.covariance import LedoitWolf

    f = f.astype(np.float64)
    f = (f - f.mean(axis=0)) / f.std(axis=0)
    fitted = LedoitWolf(store_precision=False).fit(f)
    means = np.stack([f[y == c].mean(axis=0) for c in range(int(y.max()) + 1)])[y]
    inverse = np.linalg.pinv(fitted.covariance_, hermitian=True)
    return float((1 - fitted.shrinkage_) * np.trace(inverse @ (means.T @ means)) / len(f))


def brute_gbc(f: Array, y: Array) -> float:
    """Each pair of classes by itself, each with one variance; the width counts in the logarithms."""
    f = f.astype(np.float64)
    parts = [f[y == c] for c in range(int(y.max()) + 1)]
    means = [p.mean(axis=0) for p in parts]
    wide = [max(p.var(axis=0).mean(), 1e-4 * f.var(axis=0).mean()) for p in parts]
    told = []
    for a, va in enumerate(wide):
        for b, vb in enumerate(wide):
            if a != b:
                middle = (va + vb) / 2
                apart = np.square(means[a] - means[b]).sum() / middle / 8
                told.append(apart + f.shape[1] * (np.log(middle) - np.log(va) / 2 - np.log(vb) / 2) / 2)
    least = min(told)
    return float(least - np.log(np.exp(least - np.array(told)).sum()))


def brute(name: str) -> Made:
    call = {"logme": brute_logme, "shrunk_h_score": brute_h, "gbc": brute_gbc}[name]
    return plain(call)


# -- others ----------------------------------------------------------------------------------------------------------


def thuml(place: Path) -> Made:
    module = loaded(place / "LogME.py" if place.is_dir() else place)
    return plain(lambda f, y: module.LogME(regression=False).fit(f, y))


def tllib(place: Path, name: str) -> Made:
    file, function = {
        "logme": ("logme", "log_maximum_evidence"),
        "shrunk_h_score": ("hscore", "regularized_h_score"),
        "transrate": ("transrate", "transrate"),
    }[name]
    call = getattr(loaded(place / "tllib" / "ranking" / f"{file}.py"), function)
    return plain(call)


def transformer_ranker(name: str) -> Made:
    import torch
    from transformer_ranker import estimators

    kind = {"logme": estimators.LogME, "shrunk_h_score": estimators.HScore}[name]

    def call(f: Array, y: Array) -> float:
        return float(kind(regression=False).fit(embeddings=torch.from_numpy(f), labels=torch.from_numpy(y)))

    return plain(call)


def google(place: Path) -> Made:
    """`stable_transfer/transferability/gbc.py`; without TensorFlow its few functions are NumPy's, which is faster."""
    if importlib.util.find_spec("tensorflow") is None:
        sys.modules["tensorflow"] = ModuleType("tensorflow")
        sys.modules["tensorflow"].__dict__.update(
            reduce_sum=np.sum, reduce_mean=np.mean, equal=np.equal, maximum=np.maximum, exp=np.exp,
            where=np.flatnonzero, gather_nd=lambda f, at: f[at], unique=lambda y: (np.unique(y), None),
            math=SimpleNamespace(log=np.log, reduce_variance=np.var),
        )  # fmt: skip
    for name in ("stable_transfer", "stable_transfer.transferability"):
        sys.modules.setdefault(name, ModuleType(name))
    nothing = SimpleNamespace(load_or_compute=lambda function: function)
    sys.modules["stable_transfer.transferability"].__dict__.setdefault("transfer_experiment", nothing)
    module = loaded(place)
    return plain(lambda f, y: module.get_gbc_score(f, y, "spherical"))


def loaded(file: Path) -> ModuleType:
    """A Python file as a module, without its package."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# -- measuring -------------------------------------------------------------------------------------------------------


def form(asked: str, place: Path | None) -> Made:
    """What a name stands for."""
    whose, _, name = asked.partition(":")
    if whose in ("gram", "pass"):
        return gram if whose == "gram" else passed
    if whose in ("ours", "brute"):
        return ours(name) if whose == "ours" else brute(name)
    if whose == "transformer_ranker":
        return transformer_ranker(name)
    assert place is not None, f"{whose} needs --place"
    return tllib(place, name) if whose == "tllib" else thuml(place) if whose == "thuml" else google(place)


def resident(field: str) -> int | None:
    """Bytes of this process by a field of Linux's status file; None elsewhere."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))


def measured(made: Made, features: Array, labels: Array, seconds: float, repeats: int) -> dict[str, Any]:
    """The first call's memory; as many more calls as fit the seconds, up to the repeats; the last call's values."""
    few = max(8 * (int(labels.max()) + 1), 64)
    some = np.random.default_rng(0).standard_normal((few, 24)).astype(features.dtype)
    y = np.arange(few, dtype=labels.dtype) % (int(labels.max()) + 1)
    made(some, y)(some, y)  # what is loaded or compiled at first use
    call = made(features, labels)
    gc.collect()
    before = resident("VmRSS")
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak counts from here
    except OSError:
        before = None
    taken: list[float] = []
    values: list[float] = []
    extra = None
    while not taken or (len(taken) < repeats and sum(taken) < seconds):
        begun = time.perf_counter()
        values = call(features, labels)
        taken.append(time.perf_counter() - begun)
        if len(taken) == 1 and before is not None:
            extra = max((resident("VmHWM") or before) - before, 0)
    return {"seconds": taken, "extra_bytes": extra, "values": values, "numpy": np.__version__}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("form")
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--place", type=Path, help="where the code of others lies")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    features, labels = np.load(asked.features), np.load(asked.labels)
    made = form(asked.form, asked.place)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(asked.threads)
    found = measured(made, features, labels, asked.seconds, asked.repeats)
    asked.out.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
