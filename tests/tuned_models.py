"""A family of tiny fine-tunes of one base, trained in seconds: each knows which of two groups of words is ahead.

The base knows all the words, and nothing of the groups: it was trained to say which words a text holds.
"""

from __future__ import annotations

import csv
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tiny_models import WORDS, config_for, save_tokenizer

GROUPS = {
    "animals": (WORDS[3:6], WORDS[6:9]),
    "places": (WORDS[9:12], WORDS[12:15]),
    "times": (WORDS[15:18], WORDS[18:21]),
}
LABELS = {"animals": ("calm", "wild"), "places": ("near", "far"), "times": ("past", "present")}
ROWS = {"train": 400, "valid": 150, "test": 300}
SIZES = {
    "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """base, models: folders. tables: CSV files by task and split, with `text` and `label`."""

    base: Path
    models: dict[str, Path]
    tables: dict[str, dict[str, Path]]


def sentences(task: str, count: int, seed: int) -> list[tuple[str, str]]:
    """Texts of all words, in which one group of the task outnumbers the other."""
    draw, out = random.Random(f"{task} {seed}"), []
    one, other = GROUPS[task]
    while len(out) < count:
        words = draw.choices(WORDS, k=draw.randint(4, 12))
        more = sum(w in one for w in words) - sum(w in other for w in words)
        if more:
            out.append((" ".join(words), LABELS[task][more < 0]))
    return out


def family(folder: Path, seed: int = 0, *, width: int = 32, epochs: int = 8, learning_rate: float = 1e-3) -> Family:
    """Trained and saved below the folder. epochs, learning_rate: of the fine-tunes."""
    sizes = {"hidden_size": width, "intermediate_size": 2 * width}
    tables = {}
    for task in GROUPS:
        tables[task] = {split: folder / f"{task}-{split}.csv" for split in ROWS}
        for at, (split, path) in enumerate(tables[task].items()):
            with path.open("w", newline="") as file:
                csv.writer(file).writerows([("text", "label"), *sentences(task, ROWS[split], 10 * seed + at)])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        words = sorted(w for groups in GROUPS.values() for group in groups for w in group)
        base = classifier(words, problem_type="multi_label_classification", **sizes)
        texts = [t for task in GROUPS for t, _ in sentences(task, 400, 99)]
        held = torch.tensor([[float(w in t.split()) for w in words] for t in texts])
        save_tokenizer(folder / "base", longest=20)
        trained(base, folder / "base", texts, held, epochs=12, learning_rate=3e-3)
        base.save_pretrained(folder / "base")
        tuned = {t: _tuned(t, base, folder, tables[t]["train"], epochs, learning_rate, **sizes) for t in GROUPS}
        return Family(folder / "base", tuned, tables)


def _tuned(task: str, base: Any, folder: Path, table: Path, epochs: int, learning_rate: float, **sizes: int) -> Path:
    model, where = classifier(LABELS[task], **sizes), folder / task
    model.bert.load_state_dict(base.bert.state_dict())
    with table.open() as file:
        _, *rows = csv.reader(file)
    y = torch.tensor([LABELS[task].index(label) for _, label in rows])
    save_tokenizer(where, longest=20)
    trained(model, where, [text for text, _ in rows], y, epochs=epochs, learning_rate=learning_rate)
    model.save_pretrained(where)
    return where


def classifier(labels: Any, **settings: Any) -> Any:
    """A tiny BERT with a head of those labels and random weights."""
    from transformers import AutoModelForSequenceClassification

    named = {"id2label": dict(enumerate(labels)), "label2id": {v: i for i, v in enumerate(labels)}}
    return AutoModelForSequenceClassification.from_config(config_for("bert", **named, **SIZES, **settings))


def trained(model: Any, where: Path, texts: list[str], y: torch.Tensor, *, epochs: int, learning_rate: float) -> None:
    """Trains in place, with the tokenizer that is saved in `where`."""
    from transformers import AutoTokenizer

    rows = AutoTokenizer.from_pretrained(where)(texts, padding=True, truncation=True, return_tensors="pt")
    adam = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    model.train()
    for _ in range(epochs):
        for some in torch.randperm(len(y)).split(32):
            loss = model(**{n: t[some] for n, t in rows.items()}, labels=y[some]).loss
            loss.backward()
            adam.step()
            adam.zero_grad()
    model.eval()
