"""What mergekit and headstart make of tiny models of architectures that are no language models.

    python benchmarks/mergekit_defects.py --mergekit PYTHON

PYTHON is an interpreter with mergekit 0.1.5. Two models of random weights are averaged by both; the table says how each
ended, how many of the tensors it wrote, and whether transformers loads all of them. The last rows merge classifiers of
different labels, and one fine-tune by TIES with a weight of 0.3.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
DIFFERENT = ("x", "y")


def main() -> None:
    from combination import models

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mergekit", type=Path, required=True)
    python = parser.parse_args().mergekit
    print("| models | mergekit ends with | writes | loads whole | headstart writes | loads whole |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as held:
        folder = Path(held)
        for name in models.KINDS:
            pair = [models.save(folder / f"{name}-{seed}", name, seed) for seed in range(2)]
            print(row(name, pair, folder / name, python, heads="average"), flush=True)
        for name in ("vit", "bert"):
            pair = [folder / f"{name}-0", models.save(folder / f"{name}-xy", name, 1, DIFFERENT)]
            print(row(f"{name}, other labels", pair, folder / f"{name}-labels", python, heads="separate"), flush=True)
        print(weights(folder, python))


def row(said: str, pair: list[Path], out: Path, python: Path, *, heads: Any) -> str:
    """One pair of models, by both tools."""
    from headstart.combination.merging import merge
    from headstart.io import model_folders

    wanted = set(model_folders.read(pair[0]).tensors)
    document = {"merge_method": "linear", "models": [{"model": str(p), "parameters": {"weight": 1}} for p in pair]}
    code = theirs(python, document, out.with_name(f"{out.name}-theirs"))
    written = tensors(out.with_name(f"{out.name}-theirs"))
    loads = whole(out.with_name(f"{out.name}-theirs"), pair[0]) if written else "no"
    made = merge(pair, out=out.with_name(f"{out.name}-ours"), heads=heads, load=True)
    counts = [f"{t['tensors']} of {len(wanted)}" for t in made.receipt.facts["loaded"]]
    return f"| {said} | {code} | {len(written & wanted)} of {len(wanted)} | {loads} | {', '.join(counts)} | yes |"


def theirs(python: Path, document: dict[str, Any], out: Path) -> int:
    """mergekit's command line, as it comes; its exit code."""
    recipe = out.with_suffix(".yaml")
    recipe.write_text(json.dumps(document))
    command = [str(python.parent / "mergekit-yaml"), str(recipe), str(out), "--no-copy-tokenizer"]
    return subprocess.run(command, capture_output=True, check=False).returncode


def tensors(folder: Path) -> set[str]:
    from safetensors import safe_open

    found: set[str] = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="np") as held:
            found |= set(held.keys())
    return found


def whole(folder: Path, origin: Path) -> str:
    """Whether transformers loads what was written without making tensors up; with the first model's other files."""
    import shutil

    from headstart.core import Problem
    from headstart.io import loading, model_folders

    for file in origin.iterdir():
        if file.suffix != ".safetensors" and not (folder / file.name).exists():
            shutil.copy(file, folder)
    try:
        loading.tried(folder, model_folders.read(folder).config, None)
    except Problem:
        return "no"
    return "yes"


def weights(folder: Path, python: Path) -> str:
    """How far one fine-tune of weight 0.3 goes from its base by TIES of density 1."""
    from safetensors.torch import load_file

    from headstart.combination.merging import merge

    base, tuned = folder / "bert-0", folder / "bert-1"
    each = {"weight": 0.3, "density": 1.0}
    document = {"merge_method": "ties", "base_model": str(base), "models": [{"model": str(tuned), "parameters": each}]}
    theirs(python, document, folder / "ties-theirs")
    settings = {"density": 1.0, "weights": [0.3]}
    merge([tuned], "ties", base=base, settings=settings, out=folder / "ties-ours")
    name, went = "bert.encoder.layer.0.attention.self.query.weight", []
    first, last = (load_file(f / "model.safetensors")[name].double() for f in (base, tuned))
    for out in (folder / "ties-theirs", folder / "ties-ours"):
        held = {n: t for file in out.glob("*.safetensors") for n, t in load_file(file).items()}
        went.append(float((held[name].double() - first).norm() / (last - first).norm()))
    return (
        f"\nOne fine-tune of weight 0.3 by TIES goes {went[0]:.3f} (mergekit) and {went[1]:.3f} (headstart) of its way."
    )


if __name__ == "__main__":
    main()
