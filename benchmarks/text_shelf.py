"""A shelf of text sources for the benchmarks of ranking: an encoder, some of its layers, fine-tunes, and distractors.

Everything is made once, in folders below `work/shelf` that plain transformers opens too. The fine-tunes come from
`headstart adapt` over sets that share no rows with the benchmarks' targets, but for a few of clinc_domain and mpqa.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from journey import FineTune, Record, adapted

TUNES = (
    FineTune("tuned-sst2", "sst2", 500),
    FineTune("tuned-clinc-domain", "clinc_domain", 100),
    FineTune("tuned-goemotions", "goemotions", 40),
    FineTune("tuned-tweet-hate", "tweet_hate", 400),
    FineTune("tuned-sms-spam", "sms_spam", 300),
)
QUICK_TUNES = (FineTune("tuned-sst2", "sst2", 20, epochs=1),)
SHALLOW = (2, 4)  # layers that are kept
NOISE = (0.5, 1.0)  # of each weight matrix, in its own standard deviations
LAYER = re.compile(r"(?:^|\.)layers?\.(\d+)\.")
Weights = Mapping[str, Any]


def trunks(record: Record, encoder: Path, data: Path, work: Path, *, quick: bool = False) -> list[Path]:
    """The encoder, its fine-tunes, one of random weights, and one that is badly damaged."""
    tuned = [adapted(record, data, work, one, encoder) for one in (QUICK_TUNES if quick else TUNES)]
    shelf = work / "shelf"
    made = [anew(encoder, 0, shelf / "random-0"), damaged(encoder, NOISE[-1], shelf / f"damaged-{NOISE[-1]:g}")]
    return [encoder, *(place for place in tuned if place.is_dir()), *made]


def build(record: Record, encoder: Path, data: Path, work: Path, *, quick: bool = False) -> list[Path]:
    """`trunks`, and more: the encoder's first layers as encoders, other random weights, less damage, a damaged tune."""
    here, shelf = trunks(record, encoder, data, work, quick=quick), work / "shelf"
    if quick:
        return [*here, shallow(encoder, SHALLOW[0], shelf / f"layers-{SHALLOW[0]}")]
    here += [shallow(encoder, n, shelf / f"layers-{n}") for n in SHALLOW]
    here += [damaged(encoder, NOISE[0], shelf / f"damaged-{NOISE[0]:g}"), anew(encoder, 1, shelf / "random-1")]
    return [*here, damaged(here[1], NOISE[0], shelf / f"damaged-{here[1].name}")]


def shallow(encoder: Path, layers: int, into: Path) -> Path:
    """The first layers of an encoder, as an encoder."""

    def kept(weights: Weights) -> Weights:
        deep = {name: LAYER.search(name) for name in weights}
        return {name: w for name, w in weights.items() if (m := deep[name]) is None or int(m[1]) < layers}

    def cut(config: dict[str, Any]) -> None:
        name = next(n for n in ("num_hidden_layers", "n_layers") if n in config)
        config[name] = layers

    return _copied(encoder, into, kept, cut)


def damaged(encoder: Path, level: float, into: Path) -> Path:
    """An encoder whose matrices have normal noise on them, `level` times their own standard deviation."""
    import numpy as np

    def noisy(weights: Weights) -> Weights:
        chance = np.random.default_rng(0)
        return {
            name: w
            if w.ndim < 2 or w.dtype.kind != "f"
            else w + (level * w.std() * chance.standard_normal(w.shape)).astype(w.dtype)
            for name, w in sorted(weights.items())
        }

    return _copied(encoder, into, noisy)


def anew(encoder: Path, seed: int, into: Path) -> Path:
    """An encoder of the same shape with the weights that training would begin with."""

    def drawn(_: Weights) -> Weights:
        import torch
        from transformers import AutoConfig, AutoModel

        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = AutoModel.from_config(AutoConfig.from_pretrained(encoder, local_files_only=True))
        return {name: w.numpy() for name, w in model.state_dict().items() if w.is_floating_point()}

    return _copied(encoder, into, drawn)


def _copied(
    encoder: Path,
    into: Path,
    change: Callable[[Weights], Weights],
    edit: Callable[[dict[str, Any]], None] | None = None,
) -> Path:
    """A copy of a model folder with other weights, whole or not at all; a stored head is left behind."""
    if into.is_dir():
        return into
    from safetensors.numpy import load_file, save_file

    staged = into.with_name(into.name + ".part")
    shutil.rmtree(staged, ignore_errors=True)
    shutil.copytree(encoder, staged, ignore=shutil.ignore_patterns("head.safetensors", "member.json", "README.md"))
    weights = staged / "model.safetensors"
    changed = change(load_file(weights))
    weights.unlink()
    save_file(dict(changed), weights, metadata={"format": "pt"})
    config = json.loads((staged / "config.json").read_text(encoding="utf-8"))
    if edit is not None:
        edit(config)
    (staged / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    staged.rename(into)
    return into
