"""Layers and poolings of a source against the hidden states that transformers gives, row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headstart.core import Source, Unfit
from headstart.io import layers, sources
from headstart.io.image_encoder import processor_of
from headstart.io.images import decode
from tiny_models import images, save_model, texts

Array = np.ndarray[Any, Any]


def one(folder: Path) -> Source:
    found, failed = sources.scan(folder)
    assert not failed
    return found[0]


def taps_of(source: Source, which: Any, poolings: Any = None) -> list[Source]:
    return layers.taps(source, sources.recipe_of(source)[0], which, poolings)


def said(source: Source) -> tuple[int, str]:
    tap = source.facts["tap"]
    return tap["layer"], tap["pooling"]


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "roberta"])
def test_text_is_pooled_as_one_row_at_a_time(model_type: str, tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    source, rows = one(save_model(tmp_path / "m", model_type)), texts(7)
    taps = taps_of(source, "all", ["mean", "cls", "max"])
    assert taps[0] is source
    assert [said(t) for t in taps[1:]] == [
        (n, p) for n in (0, 1, 2) for p in ("mean", "cls", "max") if (n, p) != (2, "mean")
    ]  # the last layer's mean is the source as it is
    assert len({t.identity for t in taps}) == len(taps)
    with sources.opened(source) as opened:
        found = opened.tapped(rows, taps)
        np.testing.assert_array_equal(found[0], opened.features(rows))
    tokenizer, model = AutoTokenizer.from_pretrained(tmp_path / "m"), AutoModel.from_pretrained(tmp_path / "m").eval()
    for i, text in enumerate(rows["text"].to_pylist()):
        with torch.no_grad():
            kept = tokenizer(text, return_tensors="pt", truncation=True, max_length=32)
            kept = {k: v for k, v in kept.items() if model_type == "bert" or k != "token_type_ids"}
            states = model(**kept, output_hidden_states=True).hidden_states
        for tap, features in zip(taps[1:], found[1:], strict=True):
            layer, mode = said(tap)
            tokens = states[layer][0].numpy()
            want = {"mean": tokens.mean(0), "cls": tokens[0], "max": tokens.max(0)}[mode]
            np.testing.assert_allclose(features[i], want, atol=1e-5, err_msg=tap.name)


BEFORE = {"vit": 1, "beit": 1, "deit": 2, "dinov2": 1, "dinov2_with_registers": 4}  # tokens of no patch


@pytest.mark.parametrize("model_type", [*BEFORE, "resnet", "convnext", "swin"])
def test_images_are_pooled_over_tokens_or_places(model_type: str, tmp_path: Path) -> None:
    from transformers import AutoModel

    source = one(save_model(tmp_path / "m", model_type))
    rows = images(tmp_path, 4)
    modes = ["mean", "max", "cls"] if model_type in BEFORE else ["mean", "max"]
    taps = taps_of(source, "all", modes)
    with sources.opened(source) as opened:
        found = opened.tapped(rows, taps)
    processor = processor_of(sources.recipe_of(source)[0])
    pictures = [np.asarray(decode(r)) for r in rows["image"].to_pylist()]
    model = AutoModel.from_pretrained(tmp_path / "m").eval()
    with torch.no_grad():
        states = model(**processor(images=pictures, return_tensors="pt"), output_hidden_states=True).hidden_states
    assert [said(t)[0] for t in taps[1:]] == [n for n in range(len(states)) for _ in modes]
    for tap, features in zip(taps[1:], found[1:], strict=True):
        layer, mode = said(tap)
        state = states[layer].numpy()
        if state.ndim == 4:
            parts = state.reshape(*state.shape[:2], -1).swapaxes(1, 2)
        else:
            parts = state[:, BEFORE.get(model_type, 0) :]
        want = {"mean": parts.mean(1), "max": parts.max(1), "cls": state[:, 0]}[mode]
        np.testing.assert_allclose(features, want, atol=2e-5, err_msg=tap.name)
        assert features.shape[1] == tap.facts["width"]


def test_a_layer_opens_alone_and_gives_the_same(tmp_path: Path) -> None:
    source, rows = one(save_model(tmp_path / "m", "bert")), texts(9)
    (_, tap, _) = taps_of(source, [1], ["cls", "mean"])
    with sources.opened(source) as whole, sources.opened(tap) as alone:
        np.testing.assert_allclose(alone.features(rows), whole.tapped(rows, [tap])[0], atol=1e-6)
    assert tap.gives == ("features",)
    assert tap.name == "m@1:cls"


def test_what_a_sentence_transformer_does_afterwards_is_its_own(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer, models

    save_model(tmp_path / "plain", "bert")
    word = models.Transformer(str(tmp_path / "plain"), max_seq_length=32)
    steps = [word, models.Pooling(16, "mean"), models.Normalize()]
    SentenceTransformer(modules=steps).save(str(tmp_path / "st"))
    source, rows = one(tmp_path / "st"), texts(5)
    own, last = taps_of(source, [-1])
    with sources.opened(source) as opened:
        normal, bare = opened.tapped(rows, [own, last])
    assert said(last) == (2, "mean")
    np.testing.assert_allclose(normal, bare / np.linalg.norm(bare, axis=1, keepdims=True), atol=1e-6)


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    text, image = one(save_model(tmp_path / "t", "bert")), one(save_model(tmp_path / "i", "resnet"))
    assert taps_of(text, None) == [text]
    with pytest.raises(Unfit, match="its layers are 0"):
        taps_of(text, [3])
    with pytest.raises(Unfit, match="its layers are 0"):
        taps_of(text, [-4])
    with pytest.raises(Unfit, match="cannot be pooled by `sum`"):
        taps_of(text, "all", ["sum"])
    with pytest.raises(Unfit, match="cannot be pooled by `cls`"):
        taps_of(image, "all", ["cls"])
