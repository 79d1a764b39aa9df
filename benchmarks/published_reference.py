"""Results of the authors' own code on tiny tensors, for the tests: what our merges must give.

    git clone https://github.com/danielm1405/iso-merging ISO
    git clone https://github.com/AntoAndGar/task_singular_vectors TSV
    git clone https://github.com/duguodong7/pcb-merging PCB
    git clone https://github.com/bloomberg/dataless-model-merging REGMEAN
    git clone https://github.com/r-three/mats MATS
    git clone https://github.com/LZY-the-boys/Twin-Merging TWIN
    git clone https://github.com/EnnengYang/AdaMerging ADAMERGING
    python benchmarks/published_reference.py --iso ISO --tsv TSV --pcb PCB --regmean REGMEAN --mats MATS \
        --twin TWIN --adamerging ADAMERGING --out tests/data/published.json

The numbers that go in are drawn from a seed, so that the file holds results alone: float32 bytes in base64, and the
commit of each clone. Files are imported from the clones; of those that are scripts, the functions and classes alone.
AdaMerging's loop over steps is part of such a script and is written again here: its objective, shares and optimiser.
Of Twin-Merging it is what compresses a difference.

Where the code differs from its paper, the code is what runs:
- Iso-CTS: what is left of the directions when the tasks have equal parts of them stays common.
- PCB: within a task exp(K n²) of clamped sizes n, between tasks tanh(change · sum of changes); the paper has softmaxes
  of normalised products.
- RegMean: Gram matrices off their diagonals times 0.9, which the paper has as a setting of its own for every model.
- AdaMerging: shares are kept within 0 and 1.
"""

from __future__ import annotations

import argparse
import ast
import base64
import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch

MODELS, CLASSES, ROWS, STEPS, LEARNING_RATE, SOLVED, RANK = 3, 3, 12, 20, 0.01, 3, 0.4
SHAPES = {"tall": (11, 7), "wide": (6, 10), "bias": (5,)}
KEPT = 0.9  # of what is off the diagonals of RegMean's Gram matrices
Weights = dict[str, torch.Tensor]


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def changes() -> list[Weights]:
    """What each model changed."""
    return [{n: drawn(10 * k + i, *s) for i, (n, s) in enumerate(SHAPES.items())} for k in range(MODELS)]


def layers() -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
    """A linear layer (out, in) of each model, Gram matrices of its inputs and of gradients of its outputs, and squares
    of gradients of its weights.
    """
    inputs, outputs = ([drawn(at + k, ROWS, w) for k in range(MODELS)] for at, w in ((200, 5), (250, CLASSES)))
    squares = [drawn(300 + k, CLASSES, 5).square() for k in range(MODELS)]
    tuned = [drawn(100 + k, CLASSES, 5) for k in range(MODELS)]
    return tuned, [x.T @ x / ROWS for x in inputs], [d.T @ d / ROWS for d in outputs], squares


def classifiers() -> tuple[Weights, list[Weights], list[torch.Tensor]]:
    """A linear base, what each model changed in it, and rows of each task."""
    base = {"weight": 0.1 * drawn(400, CLASSES, 5), "bias": torch.zeros(CLASSES)}
    tuned = [{"weight": drawn(410 + k, CLASSES, 5), "bias": drawn(420 + k, CLASSES)} for k in range(MODELS)]
    return base, tuned, [drawn(430 + t, ROWS, 5) for t in range(MODELS)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("iso", "tsv", "pcb", "regmean", "mats", "twin", "adamerging"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = vars(parser.parse_args())
    out = given.pop("out")
    torch.set_num_threads(1)
    torch.Tensor.cuda = lambda self, *_: self  # type: ignore[assignment,method-assign]  # some ask for a device
    results = {
        **iso(given["iso"]),
        "tsv_m": tsv(given["tsv"]),
        "pcb": pcb(given["pcb"]),
        **regmean(given["regmean"]),
        **mats(given["mats"]),
        "twin_merge": twin(given["twin"]),
        **adamerging(given["adamerging"]),
    }
    commits = {n: git(place, "rev-parse", "HEAD")[:12] for n, place in given.items()}
    said = {"made by": "benchmarks/published_reference.py", "commits": commits, "results": results}
    out.write_text(json.dumps(said, indent=0) + "\n")


def git(place: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", str(place), *words], capture_output=True, text=True, check=True).stdout.strip()


def written(tensors: Weights) -> dict[str, str]:
    return {n: base64.b64encode(t.detach().float().contiguous().numpy().tobytes()).decode() for n, t in tensors.items()}


def module(file: Path) -> Any:
    """A file as a module, without the package around it."""
    spec = importlib.util.spec_from_file_location(f"theirs_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def definitions(file: Path, **known: Any) -> SimpleNamespace:
    """The functions and classes of a script."""
    tree = ast.parse(file.read_text())
    tree.body = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    names = {"torch": torch, "np": np, **known}
    exec(compile(tree, str(file), "exec"), names)  # what whoever gave the clone asked to be run
    return SimpleNamespace(**names)


def settings(**method: Any) -> SimpleNamespace:
    return SimpleNamespace(device="cpu", DATASETS=list(range(MODELS)), method=SimpleNamespace(**method))


def vectors() -> list[SimpleNamespace]:
    return [SimpleNamespace(vector=one) for one in changes()]


def iso(place: Path) -> dict[str, Any]:
    theirs = module(place / "src" / "utils" / "iso.py")
    return {
        "iso_c": written(theirs.iso_c(vectors(), settings())),
        "iso_cts": written(theirs.iso_cts(vectors(), settings(common_space_fraction=0.5))),
    }


def tsv(place: Path) -> dict[str, str]:
    theirs = module(place / "src" / "utils" / "TSVM_utils.py")
    return written(theirs.compute_and_sum_svd_mem_reduction(vectors(), settings()))


def pcb(place: Path) -> dict[str, str]:
    """All tensors end to end, as it merges them."""
    theirs = definitions(place / "pcb-merging.py")
    long = torch.stack([torch.cat([one[n].flatten() for n in SHAPES]) for one in changes()])
    return written({"all": theirs.PCB_merge(long, pcb_ratio=0.1)[0]})


def regmean(place: Path) -> dict[str, Any]:
    package = ModuleType("theirs")
    package.__path__ = [str(place / "src" / "model_merge")]  # without what its __init__ imports
    sys.modules["theirs"] = package
    kind = importlib.import_module("theirs.avg_merger").FedAvgMerger
    asked = SimpleNamespace(
        regmean_exclude_param_regex=[], regmean_diag=False, regmean_reduce_nondiag=KEPT, fisher_normalize=None,
        fisher_smooth=1e-6,
    )  # fmt: skip
    merger, (tuned, grams, _, squares) = kind(None, asked, [], None), layers()
    held = {"layer.weight": tuned}
    care = [{"layer.weight": s} for s in squares]
    return {
        "regmean": written(merger.regmean_mean_params(held, [{"layer": g} for g in grams])),
        "fisher": written(merger.fisher_weighted_average(held, torch.ones(MODELS) / MODELS, care)),
    }


def mats(place: Path) -> dict[str, Any]:
    """A few steps from the mean, with what it holds as (in, out)."""
    from scipy.sparse.linalg import LinearOperator, cg

    theirs = definitions(
        place / "src" / "merging" / "conjugateGradient_fisherMerging.py",
        from_numpy=torch.from_numpy, LinearOperator=LinearOperator, cg=cg, tqdm=lambda names: names,
    )  # fmt: skip
    tuned, grams, outputs, _ = layers()
    name, held = "layer.weight", [t.T.contiguous() for t in tuned]
    begin = {name: torch.stack(held).mean(0)}
    pulls = {name: torch.stack([g @ t for g, t in zip(grams, held, strict=True)]).sum(0)}
    both = {name: torch.stack([g @ t @ d for g, t, d in zip(grams, held, outputs, strict=True)]).sum(0)}
    sides = [[{name: g} for g in side] for side in (grams, outputs)]
    inputs, _ = theirs.cg_forward({name: torch.stack(grams).sum(0)}, pulls, begin, SOLVED, ["layer"], True)
    kronecker, _ = theirs.cg_forwardBackward(*sides, both, begin, SOLVED, ["layer"])
    return {"mats, inputs": written(inputs), "mats, kronecker": written(kronecker)}


def twin(place: Path) -> dict[str, str]:
    """Of each model, what task arithmetic at 0.3 has not, at a share of its rank."""
    theirs = module(place / "discriminative" / "sparsify.py")
    _, tuned, _ = classifiers()
    shared = 0.3 * torch.stack([one["weight"] for one in tuned]).sum(0)
    return written({str(k): theirs.svd(one["weight"] - shared, RANK) for k, one in enumerate(tuned)})


def adamerging(place: Path) -> dict[str, Any]:
    base, tuned, rows = classifiers()
    tasks = [str(t) for t in range(MODELS)]
    found = {}
    for per in ("layer", "task"):
        theirs = definitions(
            place / "src" / f"main_{per}_wise_adamerging.py",
            args=SimpleNamespace(device="cpu"),
            get_classification_head=lambda *_: torch.nn.Identity(),
        )
        net = theirs.ModelWrapper(torch.nn.Linear(5, CLASSES))
        _, names = theirs.make_functional(net)
        made = theirs.AdaMerging([tuple(w.values()) for w in (base, *tuned)], net, names, tasks)
        optimizer = torch.optim.Adam(made.collect_trainable_params(), lr=LEARNING_RATE)
        for _ in range(STEPS):
            losses = sum(theirs.softmax_entropy(made(x, t)).mean(0) for x, t in zip(rows, tasks, strict=True))
            optimizer.zero_grad()
            losses.backward()
            optimizer.step()
        found[f"adamerging by {per}"] = written({"shares": made.lambdas()[:, 1:]})
    return found


if __name__ == "__main__":
    main()
