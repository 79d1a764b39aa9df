"""Time and memory of merges against copying the output, and against mergekit on the same recipe, in one run.

    python benchmarks/merging.py --json merging.json --work WORK [--peer-python PYTHON] [--layers 24] [--words 32000]
        [--rounds 5]
        [--cases linear-2,linear-4,…] [--cold]

Models are made in WORK: Llama-like, of random numbers, bfloat16, tied embeddings, in files of 200 MB; with 24 layers
341 million parameters. Each figure comes from a fresh process that first merges a tiny model, so that imports and the
compilation of kernels are not counted; the processes of one case take turns. In each the merge is done three times.
Medians are told of all times, of the first of each process, which is what one command takes, and of the shortest of
each, which depends least on what else the machine does; for ours, mergekit's, `cp` and the reading alike, with the
ratios of the rounds that are least and largest in brackets. A copy is `cp` of our output. A merge
waits until the disk has what it wrote; it is timed so, beside a copy and the same wait, and without waiting, beside
`cp` and mergekit, which do not wait. That the result fits transformers' class is not checked, as mergekit does not, and
as that takes a time and a memory that do not depend on the weights' size. Inputs are in the disk's cache before each
process, or with `--cold` out of it.
PYTHON is an interpreter with mergekit; without it that side is left out.

Raw results go to the JSON file after every process, and what stands there is not done again; `--only report` prints the
tables of a file.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rank_figures import table

from journey import Record, say

HERE = Path(__file__).resolve().parent
WIDTH, INNER, WORDS, HEADS = 1024, 2816, 32_000, 16
TINY = 64  # width of what is merged first, so that kernels are compiled
SHARD = 200_000_000
REPEATS = 3  # merges of a process; one where nothing is in the cache
CASES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "linear-2": ("linear", 2, {}),
    "linear-4": ("linear", 4, {}),
    "linear-8": ("linear", 8, {}),
    "task_arithmetic-4": ("task_arithmetic", 4, {"scale": 0.3}),
    "slerp-2": ("slerp", 2, {"t": 0.4}),
    "model_stock-4": ("model_stock", 4, {}),
    "dare-4": ("dare", 4, {"density": 0.2, "scale": 0.3}),
    "breadcrumbs-4": ("breadcrumbs", 4, {"density": 0.85, "outliers": 0.01}),
    "ties-4": ("ties", 4, {"density": 0.2, "scale": 0.7}),
}
# what mergekit calls it, and its settings of the whole merge and of each model
PEERS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "linear": ("linear", {}, {"weight": 1.0}),
    "task_arithmetic": ("task_arithmetic", {"lambda": 0.3}, {"weight": 1.0}),
    "slerp": ("slerp", {"t": 0.4}, {}),
    "model_stock": ("model_stock", {}, {}),
    "dare": ("dare_linear", {"lambda": 0.3}, {"weight": 1.0, "density": 0.2}),
    "breadcrumbs": ("breadcrumbs", {"lambda": 0.3}, {"weight": 1.0, "density": 0.85, "gamma": 0.01}),
    "ties": ("ties", {"lambda": 0.7}, {"weight": 1.0, "density": 0.2}),
}
BARS = {"linear-2": 0.75, "linear-4": 0.55, "task_arithmetic-4": 0.45}
PEAK = """
def peak():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM"):  # of this program alone; ru_maxrss begins with its parent's
            return int(line.split()[1]) * 1024
def touch(count):  # as `touched` below
    with open(said["touched"], "wb") as file:
        for _ in range(0, count, 1 << 24):
            file.write(bytes(1 << 24))
    os.unlink(said["touched"])
    os.sync()
"""
OURS = (
    PEAK
    + """
import json, os, shutil, sys, time
from headstart.combination.merging import merge
said = json.load(sys.stdin)
if not said["wait"]:
    os.fsync = lambda handle: None
def run(models, base, out):
    shutil.rmtree(out, ignore_errors=True)
    began = time.perf_counter()
    merge(models, said["method"], base=base, settings=said["settings"], out=out, overwrite=True, check=False)
    return time.perf_counter() - began
run(said["tiny"][1:], said["tiny"][0], said["out"] + "-tiny")
touch(said["room"])
before = peak()
seconds = [run(said["models"], said["base"], said["out"]) for _ in range(said["repeats"])]
print(json.dumps({"seconds": seconds, "peak": peak(), "before": before}))
"""
)
THEIRS = (
    PEAK
    + """
import json, os, shutil, sys, time, warnings
warnings.simplefilter("ignore")
import torch
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
said = json.load(sys.stdin)
torch.set_num_threads(said["threads"])
def run(models, base, out):
    method, whole, each = said["peer"]
    listed = [{"model": m, "parameters": each} for m in models]
    doc = {"merge_method": method, "models": listed, "dtype": "bfloat16"}
    if whole: doc["parameters"] = whole
    if method == "slerp": doc["base_model"] = models[0]
    elif method != "linear": doc["base_model"] = base
    config = MergeConfiguration.model_validate(doc)
    shutil.rmtree(out, ignore_errors=True)
    began = time.perf_counter()
    run_merge(config, out, options=MergeOptions(quiet=True, write_model_card=False, copy_tokenizer=False))
    return time.perf_counter() - began
run(said["tiny"][1:], said["tiny"][0], said["out"] + "-tiny")
touch(said["room"])
before = peak()
seconds = [run(said["models"], said["base"], said["out"]) for _ in range(said["repeats"])]
print(json.dumps({"seconds": seconds, "peak": peak(), "before": before}))
"""
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--peer-python")
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--words", type=int, default=WORDS, help="rows of the largest tensor, of 1,024 numbers each")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--only", choices=["report"])
    given = parser.parse_args()
    record = Record(given.json)
    if given.only != "report":
        if given.work is None:
            parser.error("--work is needed, unless --only report")
        cases = given.cases.split(",")
        most = max(CASES[c][1] for c in cases)
        folders = models(given.work, given.layers, most + 1, words=given.words)
        tiny = models(given.work, 1, most + 1, TINY, 500)
        for turn in range(given.rounds):
            for case in cases:
                measure(record, given, case, turn, folders, tiny)
    print(report(record.cells))


def models(work: Path, layers: int, count: int, width: int = WIDTH, words: int = WORDS) -> list[Path]:
    """A base and fine-tunes of it, made once."""
    folders, kind = [], f"llama-{width}-{layers}" + ("" if words in (WORDS, 500) else f"-{words}")
    for number in range(count):
        folder = work / kind / ("base" if number == 0 else f"tuned-{number}")
        if not (folder / "config.json").exists():
            say(f"making {folder}")
            make(folder, number, layers, width, words)
        folders.append(folder)
    return folders


def shapes(layers: int, width: int, words: int) -> dict[str, tuple[int, ...]]:
    """Tensors of a Llama whose output embedding is its input embedding."""
    inner = INNER if width == WIDTH else 2 * width
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (words, width)}
    for layer in range(layers):
        at = f"model.layers.{layer}"
        for name in "qkvo":
            found[f"{at}.self_attn.{name}_proj.weight"] = (width, width)
        found[f"{at}.mlp.gate_proj.weight"] = found[f"{at}.mlp.up_proj.weight"] = (inner, width)
        found[f"{at}.mlp.down_proj.weight"] = (width, inner)
        found[f"{at}.input_layernorm.weight"] = found[f"{at}.post_attention_layernorm.weight"] = (width,)
    return found | {"model.norm.weight": (width,)}


def make(folder: Path, number: int, layers: int, width: int, words: int) -> None:
    """The base's numbers by name, a fine-tune's small changes by name and number."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    shards: list[dict[str, torch.Tensor]] = [{}]
    held = 0
    for at, (name, shape) in enumerate(shapes(layers, width, words).items()):
        draw = torch.Generator().manual_seed(at)
        tensor = 0.02 * torch.randn(shape, generator=draw)
        if number:
            draw.manual_seed(1000 * number + at)
            tensor += 0.002 * torch.randn(shape, generator=draw)
        size = 2 * tensor.numel()
        if held + size > SHARD and shards[-1]:
            shards.append({})
            held = 0
        shards[-1][name] = tensor.bfloat16()
        held += size
    places = {}
    for i, shard in enumerate(shards):
        file = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(shard, file)
    total = sum(2 * t.numel() for s in shards for t in s.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    inner = INNER if width == WIDTH else 2 * width
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": width, "intermediate_size": inner,
        "num_hidden_layers": layers, "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "vocab_size": words,
        "tie_word_embeddings": True, "dtype": "bfloat16", "torch_dtype": "bfloat16", "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))


def measure(
    record: Record, given: argparse.Namespace, case: str, turn: int, folders: Sequence[Path], tiny: Sequence[Path]
) -> None:
    """One turn of one case: ours, a copy of what we wrote, reading the inputs, and theirs."""
    method, count, settings = CASES[case]
    base, tuned = folders[0], folders[1 : count + 1]
    out = given.work / "out"
    heat = "cold" if given.cold else "warm"
    kind = f"{given.layers}" if given.words == WORDS else f"{given.layers} of {given.words} words"
    key = f"{case}/{kind}/{heat}/{turn}"
    said = {
        "method": method, "settings": settings, "models": [str(m) for m in tuned], "base": str(base), "out": str(out),
        "tiny": [str(t) for t in tiny[: count + 1]], "peer": PEERS[method], "threads": len(os.sched_getaffinity(0)),
        "touched": str(given.work / "touched"), "room": 3 * size(base), "repeats": 1 if given.cold else REPEATS,
    }  # fmt: skip
    inputs = [base, *tuned]
    kept = {"settings": settings, "threads": said["threads"]}
    if not record.has(f"{key}/ours", kept):
        clean(out)
        prepare(inputs, cold=given.cold)
        record.put(f"{key}/ours-unwaited", kept, process(sys.executable, OURS, {**said, "wait": False}))
        clean(out)
        prepare(inputs, cold=given.cold)
        record.put(f"{key}/ours", kept, process(sys.executable, OURS, {**said, "wait": True}))
        for name, wait in (("copy", True), ("copy-unwaited", False)):
            seconds = [copied(out, given.work / "copy", wait=wait) for _ in range(said["repeats"])]
            record.put(f"{key}/{name}", kept, {"seconds": seconds, "bytes": size(out)})
        prepare(inputs, cold=given.cold)
        record.put(f"{key}/read", kept, {"seconds": [read(tuned) for _ in range(said["repeats"])]})
    if given.peer_python and not record.has(f"{key}/mergekit", kept):
        clean(out)
        prepare(inputs, cold=given.cold)
        record.put(f"{key}/mergekit", kept, process(given.peer_python, THEIRS, said))
    clean(out)


def process(python: str, code: str, said: Mapping[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        [python, "-c", code], input=json.dumps(said), capture_output=True, text=True, check=False, timeout=3600
    )
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"code {done.returncode}"}
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert isinstance(found, dict)
    return found


def clean(out: Path) -> None:
    for folder in (out, out.with_name("out-tiny"), out.with_name("copy")):
        shutil.rmtree(folder, ignore_errors=True)


def prepare(folders: Sequence[Path], *, cold: bool) -> None:
    """All files in the disk's cache, or none of them; and nothing left to be written."""
    os.sync()
    for file in (f for folder in folders for f in sorted(folder.glob("*.safetensors"))):
        with file.open("rb") as handle:
            if cold:
                os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            else:
                while handle.read(1 << 24):
                    pass


def touched(work: Path, count: int) -> None:
    """Writes as much and deletes it.

    A virtual machine may have to ask its host for memory that was free for seconds, and whoever comes first would pay
    for all: so all do this before their time begins.
    """
    with (work / "touched").open("wb") as file:
        for _ in range(0, count, 1 << 24):
            file.write(bytes(1 << 24))
    (work / "touched").unlink()


def copied(out: Path, place: Path, *, wait: bool) -> float:
    """Seconds that `cp` of the written model takes, and with wait until the disk has it."""
    import time

    shutil.rmtree(place, ignore_errors=True)
    touched(place.parent, size(out))
    os.sync()
    began = time.perf_counter()
    subprocess.run(["cp", "-r", "--reflink=never", str(out), str(place)], check=True)
    if wait:
        for file in place.glob("*.safetensors"):
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
    seconds = time.perf_counter() - began
    shutil.rmtree(place)
    return seconds


def read(folders: Sequence[Path]) -> float:
    import time

    room = np.empty(1 << 24, np.uint8)
    began = time.perf_counter()
    for file in (f for folder in folders for f in sorted(folder.glob("*.safetensors"))):
        with file.open("rb", buffering=0) as handle:
            while handle.readinto(memoryview(room)):
                pass
    return time.perf_counter() - began


def size(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.glob("*.safetensors"))


def report(cells: Mapping[str, Mapping[str, Any]]) -> str:
    groups: dict[tuple[str, str, str], dict[str, list[Mapping[str, Any]]]] = {}
    for key, cell in cells.items():
        case, layers, heat, _, who = key.split("/")
        groups.setdefault((heat, layers, case), {}).setdefault(who, []).append(cell)
    order = list(CASES)
    listed = sorted(groups.items(), key=lambda g: (*g[0][:2], order.index(g[0][2])))
    named = [((case, layers, heat), found) for (heat, layers, case), found in listed]
    said = []
    for title, kept in (
        ("All merges", list),
        ("The first of a process", first),
        ("The shortest of a process", shortest),
    ):
        rows = [(*name, *times(name[0], found, kept)) for name, found in named]
        head = (
            "case", "layers", "cache", "ours s", "cp s", "of cp's speed", "reading the inputs s",
            "of the speed of reading them and cp", "ours, on the disk s", "cp, on the disk s", "of its speed",
            "mergekit s", "times faster",
        )  # fmt: skip
        said.append(f"{title}\n\n{table(head, rows)}")
    peaks = [
        (*name, _mb(found.get("ours"), "peak"), _mb(found.get("ours"), "before"), _mb(found.get("mergekit"), "peak"))
        for name, found in named
    ]
    said.append("Memory\n\n" + table(("case", "layers", "cache", "peak MB", "before MB", "mergekit's peak MB"), peaks))
    return "\n\n".join(said)


def times(
    case: str, found: Mapping[str, Sequence[Mapping[str, Any]]], kept: Callable[[Sequence[float]], Sequence[float]]
) -> tuple[str, ...]:
    """Medians of what is kept of each process's times, and ratios of them with those of the rounds."""

    def rounds(*parts: str) -> list[list[float]]:
        """One list a round; of several parts their medians' sum."""
        each = [[kept(cell["seconds"]) for cell in found.get(who, ()) if "seconds" in cell] for who in parts]
        if len(each) == 1:
            return [list(some) for some in each[0]]
        return [[sum(statistics.median(some) for some in turn)] for turn in zip(*each, strict=False)]

    ours, copy, fast, plain = (rounds(who) for who in ("ours", "copy", "ours-unwaited", "copy-unwaited"))
    look, theirs, both = rounds("read"), rounds("mergekit"), rounds("copy-unwaited", "read")
    bar = f" (≥ {BARS[case]})" if case in BARS else ""
    return (
        _seconds(fast), _seconds(plain), _ratio(plain, fast) + bar, _seconds(look), _ratio(both, fast),
        _seconds(ours), _seconds(copy), _ratio(copy, ours), _seconds(theirs), _ratio(theirs, fast),
    )  # fmt: skip


def first(seconds: Sequence[float]) -> Sequence[float]:
    return seconds[:1]


def shortest(seconds: Sequence[float]) -> Sequence[float]:
    return [min(seconds)]


def _middle(rounds: Sequence[Sequence[float]]) -> float:
    return statistics.median(s for some in rounds for s in some)


def _seconds(rounds: Sequence[Sequence[float]]) -> str:
    return f"{_middle(rounds):.3f}" if rounds else ""


def _ratio(theirs: Sequence[Sequence[float]], ours: Sequence[Sequence[float]]) -> str:
    if not theirs or not ours:
        return ""
    each = [_middle([a]) / _middle([b]) for a, b in zip(theirs, ours, strict=False)]
    return f"{_middle(theirs) / _middle(ours):.2f} [{min(each):.2f}, {max(each):.2f}]"


def _mb(found: Sequence[Mapping[str, Any]] | None, what: str) -> str:
    values = [c[what] for c in found or () if what in c]
    return f"{max(values) / 1e6:.0f}" if values else ""


if __name__ == "__main__":
    main()
