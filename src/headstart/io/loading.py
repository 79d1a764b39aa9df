"""A folder of weights loaded as transformers loads it, and tried on one batch: proof that others can use it.

Only classes of transformers itself are made, from local safetensors; no code of a model runs.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core import Refused, Unfit, Unreadable

SENTENCES = ["The cat sat on the mat.", "Here is an old tree, under a hill.", "It was new."]
INPUTS = ("input_ids", "pixel_values", "input_values", "input_features")
TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "spiece.model", "tokenizer.model")
PREPROCESSOR = "preprocessor_config.json"
MOST_TOKENS, SIDE, SECONDS, RATE = 32, 64, 1, 16_000  # of what is tried: a text, an image in pixels, a sound
FIX = "try the first model in the same way; if it loads, merge without --load and compare the two folders"
FAULTS = Exception  # what code of others raises for files that may say anything: strict fields have errors of their own


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was loaded: transformers' class, how many tensors it used, what it was given, shapes of what came out.

    inputs: `sentences through its tokenizer`, or `random tokens` where the folder has none; and so on.
    """

    architecture: str
    tensors: int
    inputs: str
    outputs: Mapping[str, tuple[int, ...]]


def class_of(config: Mapping[str, Any], where: str) -> Any:
    """transformers' class of a configuration. Raises `Refused` for one that it has not, or whose inputs are unknown."""
    import transformers

    told = config.get("architectures")
    name = str(told[0]) if isinstance(told, list) and told else ""
    found = getattr(transformers, name, None) if name.isidentifier() else None
    if not (isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)):
        raise Refused(
            f"transformers {transformers.__version__} has no architecture `{name or 'without a name'}`",
            where=where,
            fix="merge without --load, and try the result with the code that it was made for",
        )
    kind: Any = found  # its attributes are transformers' own
    if kind.main_input_name not in INPUTS:
        raise Refused(
            f"`{name}` takes `{kind.main_input_name}`, of which no example can be made",
            where=where,
            fix="merge without --load, and try the result on an input of yours",
        )
    return kind


def tried(folder: Path, config: Mapping[str, Any], labels: int | None, called: Path) -> Loaded:
    """One model, loaded whole and run on one batch. labels: how many outputs it must have, where it has labels; called:
    the folder that it is to be.

    Raises `Unreadable` where transformers loads it not or not whole, `Unfit` where what comes out is not finite or of
    another shape.
    """
    import torch

    from . import model_folders
    from .encoders import quiet

    kind, where = class_of(config, f"`{called}`"), f"`{called}`, loaded with transformers"
    with quiet(), torch.inference_mode():
        try:
            model, report = kind.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype="auto", attn_implementation="eager",
                output_loading_info=True,
            )  # fmt: skip
        except FAULTS as error:
            raise fault("it does not load", error, where) from error
        _check_whole(report, where)
        model.eval()
        try:
            batch, said = _batch(model, folder, labels)
            out = model(**batch, return_dict=True)
        except FAULTS as error:
            raise fault("it loads, and does not run", error, where) from error
    shapes = _check_outputs(dict(_tensors(out)), labels, len(next(iter(batch.values()))), where)
    return Loaded(kind.__name__, len(model_folders.shapes(folder)), said, shapes)


def fault(what: str, error: BaseException, where: str, fix: str = FIX) -> Unreadable:
    """In our words, and a line of transformers'."""
    if "ignore_mismatched_sizes" in str(error):  # without a name: to learn it would take room for the wrong shapes
        error = ValueError("tensors have other shapes than the configuration says")
    said = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())[:160]
    return Unreadable(
        f"{what}: {said or type(error).__name__}",
        where=where,
        fix=fix,
    )


def _check_whole(report: Mapping[str, Any], where: str) -> None:
    """Every tensor on the disk is used, and none is made up."""
    for key, said in (
        ("missing_keys", "is not in the folder, and would be drawn at random"),
        ("unexpected_keys", "is in the folder, and is not used"),
    ):
        odd = sorted(str(k) for k in report.get(key) or ())
        if odd:
            more = f", and {len(odd) - 1} more" if len(odd) > 1 else ""
            raise Unreadable(
                f"tensor `{odd[0]}` {said}{more}",
                where=where,
                fix="try the first model in the same way; a merge keeps its tensors and its configuration",
            )


def _check_outputs(found: Mapping[str, Any], labels: int | None, rows: int, where: str) -> dict[str, tuple[int, ...]]:
    for name, tensor in found.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise Unfit(
                f"`{name}` holds numbers that are not finite",
                where=where,
                fix="merge with --dtype float32 or a smaller scale, or look for such numbers in the models themselves",
            )
    shapes = {name: tuple(int(n) for n in tensor.shape) for name, tensor in found.items()}
    logits = shapes.get("logits")
    if labels is not None and (logits is None or logits[0] != rows or logits[-1] != labels):
        raise Unfit(
            f"of {rows} inputs and {labels} labels came {'no logits' if logits is None else f'logits {logits}'}",
            where=where,
            fix="compare `id2label` in the configurations of the models with their heads",
        )
    return shapes


def _tensors(out: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    import torch

    if isinstance(out, torch.Tensor):
        yield name, out
    elif isinstance(out, Mapping):
        for key, value in out.items():
            yield from _tensors(value, f"{name}.{key}" if name else str(key))
    elif isinstance(out, tuple | list):
        for at, value in enumerate(out):
            yield from _tensors(value, f"{name}.{at}")


# -- one batch ---------------------------------------------------------------------------------------------------------


def _batch(model: Any, folder: Path, labels: int | None) -> tuple[dict[str, Any], str]:
    """What the model is called with, of its own tokenizer or preprocessor where it has one; and in words."""
    import torch

    takes = set(inspect.signature(model.forward).parameters)
    main = model.main_input_name
    if main == "input_ids":
        batch, said = _texts(model, folder)
        if "pixel_values" in takes and "return_loss" in takes:  # two towers, as CLIP has
            images, more = _images(model, folder)
            batch, said = {**batch, **images}, f"{said}, {more}"
    else:
        batch, said = _images(model, folder) if main == "pixel_values" else _sounds(model, folder)
    if model.config.is_encoder_decoder and "decoder_input_ids" in takes and labels is None:
        rows, start = len(next(iter(batch.values()))), getattr(model.config, "decoder_start_token_id", None)
        batch["decoder_input_ids"] = torch.full((rows, 1), start or 0)
    own = {k: v.to(model.dtype) if v.is_floating_point() else v for k, v in batch.items() if k in takes}
    return own, said


def _texts(model: Any, folder: Path) -> tuple[dict[str, Any], str]:
    import torch
    from transformers import AutoTokenizer

    config = model.config.get_text_config()
    rows = 1 if config.pad_token_id is None else len(SENTENCES)  # without padding classifiers take one row alone
    if not any((folder / name).is_file() for name in TOKENIZERS):
        g = torch.Generator().manual_seed(0)
        return {"input_ids": torch.randint(config.vocab_size, (rows, 8), generator=g)}, "random tokens"
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    rows = rows if tokenizer.pad_token is not None else 1
    found = tokenizer(SENTENCES[:rows], return_tensors="pt", padding=rows > 1, truncation=True, max_length=MOST_TOKENS)
    largest = int(found["input_ids"].max())
    if largest >= config.vocab_size:
        raise ValueError(f"its tokenizer gives token {largest}, and the embedding has {config.vocab_size} rows")
    return dict(found), "sentences through its tokenizer"


def _images(model: Any, folder: Path) -> tuple[dict[str, Any], str]:
    import torch
    from transformers import AutoImageProcessor

    if not (folder / PREPROCESSOR).is_file():
        config = getattr(model.config, "vision_config", model.config)
        side = getattr(config, "image_size", None) or SIDE
        height, width = side if isinstance(side, list | tuple) else (side, side)
        g = torch.Generator().manual_seed(0)
        pixels = torch.randn(2, getattr(config, "num_channels", 3), height, width, generator=g)
        return {"pixel_values": pixels}, "random images"
    own = AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False, backend="pil")
    draw = np.random.default_rng(0)
    images = [draw.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8) for _ in range(2)]
    found = own(images=images, return_tensors="pt", input_data_format="channels_last")
    return dict(found), "images through its preprocessor"


def _sounds(model: Any, folder: Path) -> tuple[dict[str, Any], str]:
    import torch
    from transformers import AutoFeatureExtractor

    draw = np.random.default_rng(0)
    if (folder / PREPROCESSOR).is_file():
        own = AutoFeatureExtractor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        waves = [draw.standard_normal(SECONDS * own.sampling_rate).astype(np.float32) for _ in range(2)]
        found = own(waves, sampling_rate=own.sampling_rate, return_tensors="pt")
        return dict(found), "sounds through its preprocessor"
    if model.main_input_name == "input_features":
        raise ValueError(f"there is no `{PREPROCESSOR}`, which makes features of sounds")
    both = draw.standard_normal((2, SECONDS * RATE)).astype(np.float32)
    return {"input_values": torch.from_numpy(both)}, "random sounds"
