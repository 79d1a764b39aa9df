"""Features of words against one sentence at a time through transformers, with the alignment done by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from headstart.core import Refused, Source
from headstart.io import layers, sources
from tiny_models import save_model

Array = np.ndarray[Any, Any]
SENTENCES = [
    ["the", "cat's", "old", "house"],  # the second word is three tokens
    ["it", "was", "here"],
    ["dog"],
    ["a", "", "tree", "on-the-hill"],  # the second word is none
    ["The", "DOG", "sat"],
]


def table(rows: list[list[str]]) -> pa.Table:
    return pa.table({"tokens": pa.array(rows, pa.list_(pa.string()))})


def one(folder: Path) -> Source:
    (found,), failed = sources.scan(folder)
    assert not failed
    return found


def features_of(folder: Path, rows: list[list[str]]) -> Array:
    with sources.opened(one(folder)) as opened:
        return opened.features(table(rows))


def by_hand(folder: Path, words: list[str], layer: int = -1, room: int = 32) -> Array:
    """Each word through the tokenizer alone, its tokens side by side, and the mean of their states."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    pieces = [tokenizer(w, add_special_tokens=False)["input_ids"] if w else [] for w in words]
    inside = [i for some in pieces for i in some][: room - 2]
    ids = [tokenizer.cls_token_id, *inside, tokenizer.sep_token_id]
    with torch.no_grad():
        told = model(input_ids=torch.tensor([ids]), output_hidden_states=True)
    states = told.hidden_states[layer][0, 1:-1].numpy()
    found, at = [], 0
    for piece in pieces:
        mine = states[at : at + len(piece)]
        found.append(mine.mean(axis=0) if len(mine) else np.full(states.shape[1], np.nan))
        at += len(piece)
    return np.stack(found)


@pytest.mark.parametrize("model", ["bert", "distilbert", "roberta"])
def test_each_word_is_the_mean_of_its_tokens(model: str, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "m", model)
    found = features_of(folder, SENTENCES)
    want = np.concatenate([by_hand(folder, words) for words in SENTENCES])
    assert found.shape == (15, 16)
    np.testing.assert_allclose(found, want, atol=1e-5)  # batches are padded
    assert np.isnan(found).any(axis=1).tolist() == [w == "" for words in SENTENCES for w in words]


def test_words_beyond_the_length_have_none(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "m", "bert")
    long = ["cat"] * 20 + ["dog"] * 20
    found = features_of(folder, [["it"], long])
    assert np.isnan(found).any(axis=1).tolist() == [False] * 31 + [True] * 10, "32 tokens, two of them special"
    np.testing.assert_allclose(found[1:], by_hand(folder, long), atol=1e-5)


def test_layers_have_words_too(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "m", "bert")
    source = one(folder)
    taps = layers.taps(source, sources.recipe_of(source)[0], "all", None)
    with sources.opened(source) as opened:
        found = opened.tapped(table(SENTENCES), taps)
    for tap, told in zip(taps, found, strict=True):
        layer = tap.facts.get("tap", {"layer": -1})["layer"]
        want = np.concatenate([by_hand(folder, words, layer) for words in SENTENCES])
        np.testing.assert_allclose(told, want, atol=1e-5)


def test_what_follows_pooling_and_a_prompt_are_no_part_of_a_word(tmp_path: Path) -> None:
    """A folder of sentence-transformers with normalisation, and words before each text."""
    plain = save_model(tmp_path / "m", "bert")
    prompted = tmp_path / "st"
    save_model(prompted, "bert")
    (prompted / "1_Pooling").mkdir()
    (prompted / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    (prompted / "2_Normalize").mkdir()
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds]
    (prompted / "modules.json").write_text(json.dumps(modules))
    said = {"prompts": {"query": "it is : "}, "default_prompt_name": "query"}
    (prompted / "config_sentence_transformers.json").write_text(json.dumps(said))
    found = features_of(prompted, [["old", "tree"]])
    np.testing.assert_allclose(found, by_hand(plain, ["it", "is", ":", "old", "tree"])[3:], atol=1e-5)


def test_a_token_that_begins_with_the_blank_is_of_the_word_behind_it(tmp_path: Path) -> None:
    """Bytes, as RoBERTa's tokenizer has them: the first token of `cat` stands for the blank as well."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import AutoModel, PreTrainedTokenizerFast

    folder = save_model(tmp_path / "m", "bert", vocab_size=300)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "c"), ("Ġc", "a"), ("Ġca", "t"), ("o", "n")]
    names = ["[PAD]", "[UNK]", *letters, *("".join(m) for m in merges)]
    tokenizer = Tokenizer(models.BPE({n: i for i, n in enumerate(names)}, merges, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    saved = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", model_max_length=32
    )
    saved.save_pretrained(folder)
    words = ["a", "cats", "on", "é!"]
    ids = saved("a cats on é!")["input_ids"]
    pieces = saved.convert_ids_to_tokens(ids)
    assert pieces[:4] == ["a", "Ġcat", "s", "Ġ"], "the blank before `on` is a token of its own"
    groups = [[0], [1, 2], [4], [6, 7, 8]]
    with torch.no_grad():
        states = AutoModel.from_pretrained(folder).eval()(input_ids=torch.tensor([ids])).last_hidden_state[0].numpy()
    np.testing.assert_allclose(
        features_of(folder, [words]), np.stack([states[g].mean(axis=0) for g in groups]), atol=1e-5
    )


def test_a_tokenizer_without_offsets_is_refused(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "m", "bert")
    with sources.opened(one(folder)) as opened:
        opened.features(table([["cat"]]))
        tokenizer = opened._loaded["float32"].tokenizer
        type(tokenizer).is_fast, kept = property(lambda self: False), type(tokenizer).is_fast
        try:
            with pytest.raises(Refused, match="which characters a token is of"):
                opened.features(table([["dog"]]))
        finally:
            type(tokenizer).is_fast = kept


def test_no_sentences_have_no_features(tmp_path: Path) -> None:
    assert features_of(save_model(tmp_path / "m", "bert"), []).shape == (0, 16)
