"""The two recipes that `journey.py` holds `solve` against, in processes of their own that know nothing of headstart.

    python benchmarks/journey_peers.py recipe|setfit --train T.parquet --test U.parquet --model FOLDER --out FILE.json

recipe: fine-tune the one encoder with fixed settings and plain transformers: `AutoModelForSequenceClassification` or
`AutoModelForImageClassification`, AdamW, 10 epochs, at least 150 and at most 600 steps, batches of 16, a tenth of
warm-up, then linear decay. Nothing is chosen on validation rows. setfit: Tunstall et al. 2022, with the settings of its
paper (20 pairs a row, one epoch, logistic head), at most 150 steps. Any interpreter will do that has the packages.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

RECIPE: dict[str, dict[str, float]] = {  # the tiny image models learn at higher rates than a pretrained transformer
    "text": {"learning_rate": 5e-5},
    "image": {"learning_rate": 5e-4},
}
BATCH_ROWS, EPOCHS, LEAST_STEPS, MOST_STEPS = 16, 10, 150, 600
PAIRS_PER_ROW, SETFIT_BATCH, SETFIT_STEPS = 20, 16, 150
MAX_TOKENS = 128


def rows(path: Path) -> tuple[list[Any], list[str], str]:
    """Inputs, labels and modality of a parquet file with `text` or `image`, and `label`."""
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    if "text" in table.column_names:
        return table["text"].to_pylist(), table["label"].to_pylist(), "text"
    from PIL import Image

    pictures = [Image.open(BytesIO(b)).convert("RGB") for b in table["image"].to_pylist()]
    return pictures, table["label"].to_pylist(), "image"


def recipe(
    train: Path, test: Path, folder: Path, scratch: str, seed: int, most: int
) -> tuple[list[str], dict[str, Any]]:
    """Predicted classes of the test rows, and the settings."""
    import torch
    import transformers as t

    t.set_seed(seed)
    inputs, labels, modality = rows(train)
    others, _, _ = rows(test)
    classes = sorted(set(labels))
    given = {"num_labels": len(classes), "ignore_mismatched_sizes": True, "local_files_only": True}
    model: Any
    collate: Any
    if modality == "text":
        tokenizer = t.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = t.AutoModelForSequenceClassification.from_pretrained(folder, **given)
        collate = t.DataCollatorWithPadding(tokenizer)

        def prepared(some: list[Any]) -> list[dict[str, Any]]:
            called = tokenizer(some, truncation=True, max_length=MAX_TOKENS)
            return [{k: called[k][i] for k in called} for i in range(len(some))]
    else:
        processor = t.AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        model = t.AutoModelForImageClassification.from_pretrained(folder, **given)
        collate = t.default_data_collator

        def prepared(some: list[Any]) -> list[dict[str, Any]]:
            return [{"pixel_values": p} for p in processor(some, return_tensors="pt")["pixel_values"]]

    learn = [{**x, "labels": classes.index(y)} for x, y in zip(prepared(inputs), labels, strict=True)]
    steps = min(most, MOST_STEPS, max(LEAST_STEPS, EPOCHS * -(-len(learn) // BATCH_ROWS)))
    rate = RECIPE[modality]["learning_rate"]
    settings = {"learning_rate": rate, "steps": steps, "batch_rows": BATCH_ROWS, "model": str(folder.name)}
    arguments = t.TrainingArguments(
        output_dir=scratch, max_steps=steps, per_device_train_batch_size=BATCH_ROWS, learning_rate=rate,
        per_device_eval_batch_size=64, warmup_steps=steps // 10, weight_decay=0.01, lr_scheduler_type="linear",
        save_strategy="no", logging_strategy="no", report_to=[], use_cpu=True, seed=seed, disable_tqdm=True,
    )  # fmt: skip
    trainer = t.Trainer(model=model, args=arguments, train_dataset=learn, data_collator=collate)
    trainer.train()
    model.eval()
    found: list[str] = []
    asked = prepared(others)
    with torch.inference_mode():
        for at in range(0, len(asked), 64):
            found += [classes[i] for i in model(**collate(asked[at : at + 64])).logits.argmax(1).tolist()]
    return found, settings


def setfit(
    train: Path, test: Path, folder: Path, scratch: str, seed: int, most: int
) -> tuple[list[str], dict[str, Any]]:
    """Predicted classes of the test rows, and the settings."""
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments

    inputs, labels, _ = rows(train)
    others, _, _ = rows(test)
    classes = sorted(set(labels))
    model = SetFitModel.from_pretrained(str(folder), labels=classes, local_files_only=True, device="cpu")
    model.model_body.max_seq_length = MAX_TOKENS
    steps = min(most, SETFIT_STEPS, max(1, len(inputs) * 2 * PAIRS_PER_ROW // SETFIT_BATCH))
    arguments = TrainingArguments(
        output_dir=scratch, batch_size=SETFIT_BATCH, num_iterations=PAIRS_PER_ROW, num_epochs=1, max_steps=steps,
        save_strategy="no", eval_strategy="no", logging_strategy="no", report_to="none", seed=seed,
    )  # fmt: skip
    learn = Dataset.from_dict({"text": inputs, "label": [classes.index(y) for y in labels]})
    trainer = Trainer(model=model, args=arguments, train_dataset=learn)
    trainer.train()
    found = [str(p) for p in model.predict(others, use_labels=True)]
    return found, {"pairs_per_row": PAIRS_PER_ROW, "steps": steps, "batch_pairs": SETFIT_BATCH, "model": folder.name}


def main() -> None:
    begun = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("form", choices=("recipe", "setfit"))
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=MOST_STEPS, help="at most; for trying out")
    asked = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    form = recipe if asked.form == "recipe" else setfit
    with TemporaryDirectory() as scratch:
        found, settings = form(asked.train, asked.test, asked.model, scratch, asked.seed, asked.steps)
    made = {"predictions": found, "recipe": settings, "seconds_inside": round(time.monotonic() - begun, 2)}
    asked.out.write_text(json.dumps(made), encoding="utf-8")
    print(f"{asked.form}: {len(found)} rows predicted", file=sys.stderr)


if __name__ == "__main__":
    main()
