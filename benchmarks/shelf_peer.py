"""transformer-ranker on a table of texts and some model folders, in a process of its own, as its README has it.

    python benchmarks/shelf_peer.py --train T.parquet --estimator hscore --out FILE.json FOLDER…

Any interpreter will do that has `transformer-ranker` and `pyarrow`. Layers are averaged, which is its default.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path


def main() -> None:
    begun = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--estimator", choices=("hscore", "logme", "knn"), default="hscore")
    parser.add_argument("--layers", choices=("layermean", "lastlayer", "bestlayer"), default="layermean")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import pyarrow.parquet as pq
    from datasets import Dataset
    from transformer_ranker import TransformerRanker

    table = pq.read_table(asked.train, columns=["text", "label"])
    ranker = TransformerRanker(dataset=Dataset.from_dict(table.to_pydict()), text_column="text", label_column="label")
    found = ranker.run(asked.folders, estimator=asked.estimator, layer_aggregator=asked.layers, batch_size=32)
    scores = {Path(name).name: float(score) for name, score in found.scores.items()}
    made = {"scores": scores, "rows": len(ranker.texts), "seconds_inside": round(time.monotonic() - begun, 2)}
    asked.out.write_text(json.dumps(made), encoding="utf-8")


if __name__ == "__main__":
    main()
