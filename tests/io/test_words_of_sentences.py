"""Features of words, and what taggers say of them, against one sentence at a time through transformers.

The alignment of features is done by hand; of predictions it is that of transformers' own tokenizers (`word_ids`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from headstart.core import Refused, Source, Unreadable
from headstart.io import layers, sources
from tiny_models import save_model

Array = np.ndarray[Any, Any]
TAGS = ["O", "B-PLANT", "B-PET"]
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


def byte_level(folder: Path) -> Any:
    """Bytes, as RoBERTa's tokenizer has them: the first token of `cat` stands for the blank as well."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

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
    return saved


def test_a_token_that_begins_with_the_blank_is_of_the_word_behind_it(tmp_path: Path) -> None:
    from transformers import AutoModel

    folder = save_model(tmp_path / "m", "bert", vocab_size=300)
    saved = byte_level(folder)
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


def said_of(folder: Path, rows: list[list[str]]) -> Array:
    with sources.opened(one(folder)) as opened:
        return opened.predictions(table(rows))


def tagged(folder: Path, words: list[str]) -> Array:
    """Probabilities at the first token of each word, all by transformers itself."""
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    called = tokenizer(words, is_split_into_words=True, truncation=True, return_tensors="pt")
    model = AutoModelForTokenClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        told = model(input_ids=called["input_ids"]).logits[0].softmax(-1).numpy()
    of: list[int | None] = called.word_ids()
    lost = np.full(told.shape[1], np.nan)
    return np.stack([told[of.index(at)] if at in of else lost for at in range(len(words))])


@pytest.mark.parametrize("model", ["bert", "distilbert", "roberta", "electra", "deberta-v2"])
def test_a_tagger_says_of_each_word_what_its_head_says_at_the_first_token(model: str, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "m", model, tags=TAGS)
    source = one(folder)
    assert (source.gives[-1], source.facts["labels"], source.facts["pooling"]) == ("word_predictions", TAGS, "mean")
    long = ["cat"] * 20 + ["dog"] * 20
    found = said_of(folder, [*SENTENCES, long])
    np.testing.assert_allclose(found, np.concatenate([tagged(folder, w) for w in [*SENTENCES, long]]), atol=1e-5)
    seen = ~np.isnan(found).any(axis=1)
    np.testing.assert_array_equal(seen, ~np.isnan(features_of(folder, [*SENTENCES, long])).any(axis=1))
    assert (~seen).sum() == 1 + 10, "a word without a character, and those beyond 32 tokens"
    np.testing.assert_allclose(found[seen].sum(axis=1), 1)
    assert said_of(folder, []).shape == (0, 3)


def test_what_a_tagger_says_is_not_the_mean_over_a_words_tokens(tmp_path: Path) -> None:
    """The head on the mean of `cat's` says another thing, so the comparison above can fail."""
    from safetensors.numpy import load_file

    folder = save_model(tmp_path / "m", "bert", tags=TAGS)
    held = load_file(folder / "model.safetensors")
    z = features_of(folder, SENTENCES) @ held["classifier.weight"].T + held["classifier.bias"]
    mean = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    off = np.abs(mean - said_of(folder, SENTENCES)).max(axis=1)
    assert off[1] > 1e-3
    np.testing.assert_allclose(off[[0, 2, 3]], 0, atol=1e-5)  # words of one token


def test_the_blank_before_a_word_is_not_its_first_token(tmp_path: Path) -> None:
    from transformers import AutoModelForTokenClassification

    folder = save_model(tmp_path / "m", "roberta", tags=TAGS, vocab_size=300)
    ids = byte_level(folder)("a cats on é!")["input_ids"]
    with torch.no_grad():
        model = AutoModelForTokenClassification.from_pretrained(folder).eval()
        told = model(input_ids=torch.tensor([ids])).logits[0].softmax(-1).numpy()
    np.testing.assert_allclose(said_of(folder, [["a", "cats", "on", "é!"]]), told[[0, 1, 4, 6]], atol=1e-5)


def test_heads_of_rows_and_of_words_do_not_stand_for_each_other(tmp_path: Path) -> None:
    tagger, classifier = save_model(tmp_path / "t", "bert", tags=TAGS), save_model(tmp_path / "c", "bert", head=True)
    with pytest.raises(Refused, match="the head of `c` predicts whole rows, and these are lists of words"):
        said_of(classifier, SENTENCES)
    other = "the head of `t` predicts a tag for each word, and these are whole rows"
    with sources.opened(one(tagger)) as opened, pytest.raises(Refused, match=other):
        opened.predictions(pa.table({"text": ["the old tree"]}))
    with pytest.raises(Refused, match="`b` has no head of its own") as bare:
        said_of(save_model(tmp_path / "b", "bert"), SENTENCES)
    assert "tagger" in bare.value.fix, "none can be fitted yet"


def test_a_tagger_has_one_class_a_word_whatever_its_configuration_says_of_rows(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "m", "bert", tags=TAGS, problem_type="multi_label_classification")
    np.testing.assert_allclose(said_of(folder, SENTENCES[:2]).sum(axis=1), 1)


def test_a_part_of_a_taggers_head_that_is_missing_is_not_made_up(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = save_model(tmp_path / "m", "bert", tags=TAGS)
    held = load_file(folder / "model.safetensors")
    del held["classifier.bias"]
    save_file(held, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(Unreadable, match=r"`classifier\.bias`"):
        said_of(folder, SENTENCES)
    del held["classifier.weight"]
    save_file(held, folder / "model.safetensors", metadata={"format": "pt"})
    assert one(folder).gives == ("features", "gradients", "weights")


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
