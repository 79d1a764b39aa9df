"""Merges of models whose vocabularies differ: every token's row against float64 arithmetic on rows found by string.

What goes in and what comes out is loaded with transformers, which reads tokenizers in its own way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from headstart.combination import forecasts
from headstart.combination.merging import merge, merge_recipe, planned
from headstart.core import Problem, Refused, Unfit, Unreadable
from headstart.io import adapted
from tiny_models import config_for

Rows = dict[str, torch.Tensor]
WHOLE = {"scale": 1.0}
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>"]


def vocabulary(kind: str, words: Sequence[str], merges: Sequence[tuple[str, str]] = ()) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    ids = {w: i for i, w in enumerate(words)}
    model = {
        "WordLevel": lambda: models.WordLevel(ids, unk_token="<unk>"),
        "WordPiece": lambda: models.WordPiece(ids, unk_token="<unk>"),
        "BPE": lambda: models.BPE(ids, list(merges), unk_token="<unk>"),
        "Unigram": lambda: models.Unigram([(w, -float(i)) for i, w in enumerate(words)], 0, False),
    }[kind]()
    made = Tokenizer(model)
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


def save(
    folder: Path, words: Sequence[str], *, kind: str = "WordLevel", merges: Sequence[tuple[str, str]] = (),
    added: Sequence[str] = (), special: Sequence[str] = (), rows: int | None = None, seed: int = 0,
    model_type: str = "llama", tie: bool = False, **config: Any,
) -> Path:  # fmt: skip
    """A language model with a tokenizer, as transformers saves them."""
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedTokenizerFast

    made = vocabulary(kind, [*SPECIAL, *words], merges)
    made.add_special_tokens(list(special))
    made.add_tokens(list(added))
    tokens = made.get_vocab(with_added_tokens=True)
    PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    ).save_pretrained(folder)
    made_config = config_for(
        model_type, vocab_size=rows or len(tokens), tie_word_embeddings=tie, bos_token_id=1, eos_token_id=2,
        pad_token_id=3, num_key_value_heads=2, **config,
    )  # fmt: skip
    kind_of = AutoModelForMaskedLM if model_type in ("bert", "roberta", "distilbert") else AutoModelForCausalLM
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind_of.from_config(made_config)
        for value in model.parameters():
            value.data = value.data + 0.15 * torch.randn_like(value.data)
    model.save_pretrained(folder)
    return folder


def loaded(folder: Path, masked: bool = False) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

    kind = AutoModelForMaskedLM if masked else AutoModelForCausalLM
    model, report = kind.from_pretrained(folder, output_loading_info=True, local_files_only=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    return AutoTokenizer.from_pretrained(folder, local_files_only=True), model


def rows_of(folder: Path, which: str = "input", masked: bool = False) -> Rows:
    """Token -> its row."""
    tokenizer, model = loaded(folder, masked)
    layer = model.get_input_embeddings() if which == "input" else model.get_output_embeddings()
    table = (layer.bias[:, None] if which == "bias" else layer.weight).double().detach()
    return {t: table[i] for t, i in tokenizer.get_vocab().items() if i < len(table)}


def with_defaults(tables: Sequence[Rows], base: Rows | None, tokens: Sequence[str]) -> list[Rows]:
    """Rows that a model lacks: the base's, else the mean of the owners'."""
    every = [*([base] if base is not None else []), *tables]
    out = []
    for table in every:
        full = {}
        for token in tokens:
            owners = [t[token] for t in every if token in t]
            default = base[token] if base is not None and token in base else torch.stack(owners).mean(0)
            full[token] = table.get(token, default)
        out.append(full)
    return out


def check_mean(made: Path, folders: Sequence[Path], which: str = "input", masked: bool = False) -> Rows:
    out = rows_of(made, which, masked)
    full = with_defaults([rows_of(f, which, masked) for f in folders], None, list(out))
    for token, row in out.items():
        expected = torch.stack([f[token] for f in full]).mean(0)
        torch.testing.assert_close(row, expected, atol=1e-6, rtol=0)
    return out


def check_sum(made: Path, folders: Sequence[Path], base: Path, which: str = "input") -> Rows:
    """Task arithmetic: the base and all changes."""
    out = rows_of(made, which)
    root, *full = with_defaults([rows_of(f, which) for f in folders], rows_of(base, which), list(out))
    for token, row in out.items():
        expected = root[token] + sum(f[token] - root[token] for f in full)
        torch.testing.assert_close(row, expected, atol=1e-6, rtol=0)
    return out


ANIMALS = ["cat", "dog", "owl", "fox", "hen"]


@pytest.mark.parametrize("which", ["input", "output"])
def test_the_same_tokens_in_another_order_are_matched(which: str, tmp_path: Path) -> None:
    one = save(tmp_path / "one", ANIMALS, seed=1)
    two = save(tmp_path / "two", ANIMALS[::-1], seed=2)
    made = merge([one, two], out=tmp_path / "out")
    check_mean(made.where, [one, two], which)
    assert loaded(made.where)[0]("cat hen owl").input_ids == loaded(one)[0]("cat hen owl").input_ids
    facts = made.receipt.facts["vocabulary"]
    assert facts["rule"] == "aligned"
    assert facts["said"] == "the same 9 tokens in all, rows matched by token"
    assert {"how": "merged", "rule": "`linear`, rows by token", "tensors": 2} in made.receipt.facts["tensors"]


def test_other_tokens_of_the_same_number_are_refused(tmp_path: Path) -> None:
    one, two = save(tmp_path / "one", ANIMALS), save(tmp_path / "two", [*ANIMALS[:4], "emu"])
    with pytest.raises(Refused, match="2 tokens are of `one` or `two` alone, such as `emu`"):
        planned([one, two])
    with pytest.raises(Refused, match="alone, such as `emu`"):
        planned([one], "ties", base=two)


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("which", ["input", "output"])
def test_a_union_has_the_tokens_of_all(which: str, tie: bool, tmp_path: Path) -> None:
    base = save(tmp_path / "base", ANIMALS, tie=tie)
    one = save(tmp_path / "one", ANIMALS, special=["<|user|>", "<|bot|>"], seed=1, tie=tie)
    two = save(tmp_path / "two", ANIMALS, special=["<|bot|>"], added=["<tool>"], seed=2, tie=tie)
    made = merge([one, two], "task_arithmetic", base=base, settings=WHOLE, vocabulary="union", out=tmp_path / "out")
    out = check_sum(made.where, [one, two], base, which)
    tokenizer, model = loaded(made.where)
    assert set(out) == {*SPECIAL, *ANIMALS, "<|user|>", "<|bot|>", "<tool>"}
    assert model.config.vocab_size == len(out) == len(tokenizer)
    text = "cat <|bot|> <tool> owl"
    assert tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids) == ["cat", "<|bot|>", "<tool>", "owl"]
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == "cat <tool> owl"
    alone = rows_of(one, which)["<|user|>"]  # only one has it: it changed nothing, and nobody else did
    torch.testing.assert_close(out["<|user|>"], alone, atol=1e-6, rtol=0)
    said = made.receipt.facts["vocabulary"]
    assert [m["lacking"] for m in said["models"]] == [1, 1, 3]
    assert said["said"].startswith("the union, 12 tokens, rows matched by token; `one` lacks 1;")


def test_a_model_that_lacks_a_token_changes_nothing_there(tmp_path: Path) -> None:
    """Of three sources that agree in all but one token, ties takes the one that has it."""
    base = save(tmp_path / "base", ANIMALS)
    one = save(tmp_path / "one", ANIMALS[:3], seed=1)
    two = save(tmp_path / "two", ANIMALS, seed=2)
    made = merge([one, two], "task_arithmetic", base=base, settings=WHOLE, vocabulary="base", out=tmp_path / "out")
    out = check_sum(made.where, [one, two], base)
    torch.testing.assert_close(out["hen"], rows_of(two)["hen"], atol=1e-6, rtol=0)


def test_a_method_that_sees_whole_tensors_and_one_that_trims_get_the_same_rows(tmp_path: Path) -> None:
    """The base in another order and with one more token: the merge of files that were put in order by hand."""
    base = save(tmp_path / "base", [*ANIMALS[::-1], "emu"])
    plain = save(tmp_path / "plain", [*ANIMALS, "emu"])
    tuned = [save(tmp_path / f"m{i}", ANIMALS, seed=i) for i in (1, 2)]
    by_hand = [save(tmp_path / f"h{i}", [*ANIMALS, "emu"], seed=i) for i in (1, 2)]
    root = load_file(base / "model.safetensors")
    order = [loaded(base)[0].get_vocab()[t] for t in [*SPECIAL, *ANIMALS, "emu"]]
    for folder, source in ((plain, base), *zip(by_hand, tuned, strict=True)):
        tensors = load_file(source / "model.safetensors")
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            last = root[name][order]
            tensors[name] = last if source is base else torch.cat([tensors[name], last[-1:]])
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    for method in ("ties", "breadcrumbs", "iso_c", "tsv_m", "sce", "slerp", "model_stock"):
        made = merge(tuned, method, base=base, vocabulary="union", out=tmp_path / f"{method}-ours").where
        wanted = merge(by_hand, method, base=plain, out=tmp_path / f"{method}-wanted").where
        ours, theirs = (load_file(f / "model.safetensors") for f in (made, wanted))
        assert all(torch.equal(ours[n], theirs[n]) for n in theirs), method


def test_the_bases_vocabulary_brings_its_files_and_ids(tmp_path: Path) -> None:
    base = save(tmp_path / "base", ANIMALS)
    one = save(tmp_path / "one", [*ANIMALS[::-1], "emu"], seed=1)
    for name in ("config.json", "generation_config.json"):
        said = json.loads((one / name).read_text())
        said |= {"eos_token_id": [2, 4], "decoder_start_token_id": 8, "forced_bos_token_id": 9, "pad_token_id": None}
        (one / name).write_text(json.dumps(said))
    (one / "vocab.txt").write_text("stale")
    made = merge([one], "task_arithmetic", base=base, settings=WHOLE, vocabulary="base", out=tmp_path / "out")
    check_sum(made.where, [one], base)
    assert (made.where / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    assert not (made.where / "vocab.txt").exists()
    for name in ("config.json", "generation_config.json"):
        said = json.loads((made.where / name).read_text())
        # `hen` was 4 and is 8, `cat` was 8 and is 4; `emu`, 9, is no more
        assert [said[f"{k}_token_id"] for k in ("eos", "decoder_start", "forced_bos", "pad")] == [[2, 8], 4, None, None]
    assert json.loads((made.where / "config.json").read_text())["vocab_size"] == 9
    assert "the result has no token for forced_bos_token_id of `one`, which is none now" in made.receipt.warnings
    assert "1 of `one` are left out" in made.receipt.facts["vocabulary"]["said"]


def test_the_first_models_vocabulary_is_kept_as_it_is(tmp_path: Path) -> None:
    one = save(tmp_path / "one", [*ANIMALS, "emu"], seed=1)
    two = save(tmp_path / "two", [*ANIMALS[::-1], "yak"], seed=2)
    made = merge([one, two], vocabulary="first", out=tmp_path / "out")
    out = check_mean(made.where, [one, two])
    assert "yak" not in out
    torch.testing.assert_close(out["emu"], rows_of(one)["emu"], atol=1e-6, rtol=0)
    assert (made.where / "tokenizer.json").read_bytes() == (one / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("model_type", ["bert", "roberta", "distilbert"])
@pytest.mark.parametrize("which", ["input", "output", "bias"])
def test_masked_language_models_and_their_biases(which: str, model_type: str, tmp_path: Path) -> None:
    one = save(tmp_path / "one", ANIMALS, seed=1, model_type=model_type, tie=True)
    two = save(tmp_path / "two", ANIMALS[::-1], seed=2, model_type=model_type, tie=True)
    made = merge([one, two], out=tmp_path / "out")
    check_mean(made.where, [one, two], which, masked=True)


def test_rows_beyond_the_tokenizer_are_matched_by_place(tmp_path: Path) -> None:
    """Of 9 tokens in 16 and in 12 rows; and new tokens take the first rows that no token has."""
    one = save(tmp_path / "one", ANIMALS, rows=16, seed=1)
    two = save(tmp_path / "two", ANIMALS[::-1], rows=12, seed=2)
    made = merge([one, two], out=tmp_path / "out")
    check_mean(made.where, [one, two])
    name = "model.embed_tokens.weight"
    ours, first, second = (load_file(f / "model.safetensors")[name] for f in (made.where, one, two))
    torch.testing.assert_close(ours[9:12], (first[9:12] + second[9:12]) / 2)
    torch.testing.assert_close(ours[12:], first[12:])
    three = save(tmp_path / "three", ANIMALS, special=["<|bot|>"], seed=3)
    joined = merge([one, three], vocabulary="union", out=tmp_path / "joined").where
    check_mean(joined, [one, three])
    ours = load_file(joined / "model.safetensors")[name]
    assert ours.shape[0] == 16
    torch.testing.assert_close(ours[9], load_file(three / "model.safetensors")[name][9])
    torch.testing.assert_close(ours[10:], first[10:])


def test_a_token_that_the_tokenizer_knows_and_the_model_has_no_row_for(tmp_path: Path) -> None:
    one = save(tmp_path / "one", ANIMALS, special=["<|user|>", "<|bot|>"], rows=9, seed=1)
    two = save(tmp_path / "two", ANIMALS, special=["<|bot|>"], seed=2)
    merged = merge([one, two], vocabulary="union", out=tmp_path / "out")
    out = rows_of(merged.where)
    assert merged.receipt.warnings == ("1 rows of the vocabulary are zeros: no model has them",)
    assert not out["<|user|>"].any()  # nobody has one: zeros
    torch.testing.assert_close(out["<|bot|>"], rows_of(two)["<|bot|>"], atol=1e-6, rtol=0)


def test_pieces_of_words_join_where_words_are_cut_in_one_way(tmp_path: Path) -> None:
    one = save(tmp_path / "one", ["un", "##do"], kind="WordPiece", special=["<|bot|>"], seed=1)
    two = save(tmp_path / "two", ["##ne", "un"], kind="WordPiece", seed=2)
    made = merge([one, two], vocabulary="union", out=tmp_path / "out")
    check_mean(made.where, [one, two])
    assert loaded(made.where)[0].tokenize("undone") == ["un", "##do", "##ne"]
    assert "what was cut into pieces may be whole now" in made.receipt.warnings[0]


def test_merges_of_byte_pairs_come_after_the_first_ones(tmp_path: Path) -> None:
    letters = list("abcd")
    one = save(tmp_path / "one", [*letters, "ab"], kind="BPE", merges=[("a", "b")], special=["<|bot|>"], seed=1)
    two = save(tmp_path / "two", [*letters, "bc", "cd", "abcd"], kind="BPE", seed=2,
               merges=[("b", "c"), ("c", "d")])  # fmt: skip
    made = merge([one, two], vocabulary="union", out=tmp_path / "out")
    check_mean(made.where, [one, two])
    tokenizer = loaded(made.where)[0]
    assert tokenizer.tokenize("abcd") == ["ab", "cd"]  # `ab` before `bc`, which comes second
    assert tokenizer.tokenize("bc <|bot|>") == ["bc", "<|bot|>"]
    assert "the merges of `one` come first" in made.receipt.warnings[0]


@pytest.mark.parametrize(
    ("kinds", "what"),
    [
        (("WordLevel", "WordPiece"), "the tokenizers are WordPiece and WordLevel"),
        (("Unigram", "Unigram"), "the tokenizers are Unigram and Unigram"),
    ],
)
def test_tokenizers_that_cannot_be_one_are_refused(kinds: tuple[str, str], what: str, tmp_path: Path) -> None:
    one = save(tmp_path / "one", ANIMALS, kind=kinds[0])
    two = save(tmp_path / "two", [*ANIMALS, "emu"], kind=kinds[1])
    with pytest.raises(Refused, match=f"`emu` and other pieces of words of `two` cannot join `one`: {what}"):
        planned([one, two], vocabulary="union")
    assert planned([one, two], vocabulary="first").words is not None


def test_normalizers_that_differ_are_refused_and_tokens_of_unigrams_are_added(tmp_path: Path) -> None:
    one = save(tmp_path / "one", ANIMALS, kind="Unigram", seed=1)
    two = save(tmp_path / "two", ANIMALS, kind="Unigram", special=["<|bot|>"], seed=2)
    made = merge([one, two], vocabulary="union", out=tmp_path / "out").where
    assert "<|bot|>" in check_mean(made, [one, two])
    three = save(tmp_path / "three", ANIMALS)
    four = save(tmp_path / "four", [*ANIMALS, "emu"])
    said = json.loads((four / "tokenizer.json").read_text())
    (four / "tokenizer.json").write_text(json.dumps({**said, "normalizer": {"type": "Lowercase"}}))
    with pytest.raises(Refused, match="differ in `normalizer`"):
        planned([three, four], vocabulary="union")


# Folders without transformers: only names, shapes and files of tokens


def write(folder: Path, rows: int, files: Mapping[str, Any] | None = None, seed: int = 0, **config: Any) -> Path:
    folder.mkdir(parents=True)
    g = torch.Generator().manual_seed(seed)
    table = {"embed_tokens.weight": torch.randn(rows, 3, generator=g), "other.weight": torch.ones(2, 3)}
    save_file(table, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"vocab_size": rows, **config}))
    for name, said in (files or {}).items():
        (folder / name).write_text(said if isinstance(said, str) else json.dumps(said))
    return folder


def listed(*words: str) -> dict[str, Any]:
    return {"vocab.json": {w: i for i, w in enumerate(words)}}


FORMS: dict[str, Callable[[Sequence[str]], dict[str, Any]]] = {
    "vocab.json": lambda w: listed(*w),
    "vocab.txt": lambda w: {"vocab.txt": "".join(f"{one}\n" for one in w)},
    "vocab.txt, without an end": lambda w: {"vocab.txt": "\n".join(w)},
    "vocab.txt and added_tokens.json": lambda w: {"vocab.txt": "\n".join(w[:-1]), "added_tokens.json": {w[-1]: 3}},
    "tokenizer.json": lambda w: {"tokenizer.json": {"model": listed(*w) and {"vocab": listed(*w)["vocab.json"]}}},
    "tokenizer.json, by scores": lambda w: {"tokenizer.json": {"model": {"vocab": [[one, -1.0] for one in w]}}},
    "tokenizer.json, with added tokens": lambda w: {
        "tokenizer.json": {
            "model": {"vocab": {one: i for i, one in enumerate(w[:-1])}},
            "added_tokens": [{"id": 3, "content": w[-1]}, {"id": 0, "content": w[0]}],
        }
    },
    "settings": lambda w: {
        "vocab.txt": "\n".join(w[:-1]), "tokenizer_config.json": {"added_tokens_decoder": {"3": {"content": w[-1]}}},
    },
}  # fmt: skip


@pytest.mark.parametrize("rule", ["union", "base", "first"])
def test_heads_that_stay_apart_have_one_vocabulary(rule: str, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    base = save(tmp_path / "base", ANIMALS, model_type="bert")
    tuned = []
    for i, each in enumerate((ANIMALS[::-1], [*ANIMALS, "emu"])):
        folder = save(tmp_path / f"m{i}", each, model_type="bert", seed=i + 1)
        labels = {str(k): f"{i}{k}" for k in range(2)}
        made = AutoModelForSequenceClassification.from_pretrained(folder, id2label=labels, local_files_only=True)
        made.save_pretrained(folder)
        tuned.append(folder)
    out = merge(tuned, base=base, heads="separate", vocabulary=rule, out=tmp_path / "out")  # type: ignore[arg-type]
    tables = []
    for folder in (out.where / "m0", out.where / "m1"):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True)
        table = model.get_input_embeddings().weight.double().detach()
        assert model.config.vocab_size == len(table) == len(tokenizer)
        assert model.config.pad_token_id == tokenizer.get_vocab()["<pad>"]
        tables.append({t: table[i] for t, i in tokenizer.get_vocab().items()})
    assert set(tables[0]) == set(tables[1]) == {*SPECIAL, *ANIMALS, *(["emu"] if rule == "union" else [])}
    inputs = []
    for folder in (*tuned, base):
        words = AutoTokenizer.from_pretrained(folder, local_files_only=True).get_vocab()
        table = load_file(folder / "model.safetensors")["bert.embeddings.word_embeddings.weight"].double()
        inputs.append({t: table[i] for t, i in words.items()})
    full = with_defaults(inputs[:2], inputs[2], list(tables[0]))
    for token, row in tables[0].items():
        torch.testing.assert_close(row, (full[1][token] + full[2][token]) / 2, atol=1e-6, rtol=0)
        assert torch.equal(row, tables[1][token])


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_vocabulary_is_read(form: str, tmp_path: Path) -> None:
    one = write(tmp_path / "one", 4, listed("a", "b", "c", "d"))
    two = write(tmp_path / "two", 4, FORMS[form](["d", "a", "b", "c"]))
    plan = planned([one, two])
    parts = plan.made[0].tuned
    assert parts[0].rows is None
    assert parts[1].rows is not None
    assert parts[1].rows.tolist() == [1, 2, 3, 0]
    assert plan.made[1].tuned[1].rows is None


SHAPE = {"inner_size": 2, "hidden_size": 3}  # so that an axis as long as the vocabulary is not taken for it
words = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8, unique=True)


@settings(deadline=None, max_examples=40)
@given(
    models=st.lists(words, min_size=2, max_size=3), root=words, rule=st.sampled_from(["union", "base", "first"]),
    pad=st.integers(0, 3),
)  # fmt: skip
def test_any_vocabularies_give_the_rows_of_the_rule(
    tmp_path_factory: pytest.TempPathFactory, models: list[list[str]], root: list[str], rule: str, pad: int
) -> None:
    """In float64, row by row. Unions need tokenizer.json files, which word lists are here."""
    place = tmp_path_factory.mktemp("any")
    tables: list[Rows] = []
    folders = []
    for number, each in enumerate([root, *models]):
        made = vocabulary("WordLevel", each)
        rows = len(each) + (pad if number == 1 else 0)
        folders.append(write(place / str(number), rows, {"tokenizer.json": made.to_str()}, seed=number, **SHAPE))
        table = load_file(folders[-1] / "model.safetensors")["embed_tokens.weight"].double()
        tables.append({t: table[i] for i, t in enumerate(each)})
    made_at = merge(
        folders[1:], "task_arithmetic", base=folders[0], settings=WHOLE, vocabulary=rule, out=place / "out"
    ).where
    out = load_file(made_at / "model.safetensors")["embed_tokens.weight"].double()
    owner = root if rule == "base" else models[0]
    tokens = list(dict.fromkeys([*owner, *(t for m in [*models[1:], root] for t in m)])) if rule == "union" else owner
    full = with_defaults(tables[1:], tables[0], tokens)
    assert json.loads((made_at / "config.json").read_text())["vocab_size"] == len(out)
    padded = len(root) if rule == "base" else len(models[0]) + pad
    assert len(out) == (max(padded, len(tokens)) if rule == "union" else padded)
    said = json.loads((made_at / "tokenizer.json").read_text())["model"]["vocab"]
    assert set(said) == set(tokens)
    for token in tokens:
        expected = full[0][token] + sum(f[token] - full[0][token] for f in full[1:])
        torch.testing.assert_close(out[said[token]], expected, atol=1e-6, rtol=0)


def test_equal_files_are_not_even_read(tmp_path: Path) -> None:
    files = {"tokenizer.json": "no JSON at all"}
    folders = [write(tmp_path / n, 4, files, seed=i) for i, n in enumerate("ab")]
    plan = planned(folders)
    assert plan.words is not None
    assert plan.words.facts["rule"] == "same"
    assert all(p.rows is None for m in plan.made for p in m.tuned)
    spiece = [write(tmp_path / n, 4, {"spiece.model": "proto"}, seed=i) for i, n in enumerate("cd")]
    words = planned(spiece).words
    assert words is not None
    assert words.facts["said"] == "the same in all (4 rows)"


def test_a_folder_without_tokenizer_files_is_taken_as_it_is_and_said(tmp_path: Path) -> None:
    told = write(tmp_path / "told", 4, listed("a", "b", "c", "d"))
    other = write(tmp_path / "other", 4, listed("b", "a", "c", "d"))
    bare = write(tmp_path / "bare", 4)
    wide = write(tmp_path / "wide", 5)
    plan = planned([told, bare])
    assert plan.warnings == ("rows of words are taken as they are (4): no tokenizer files in `bare`",)
    both = planned([bare, bare]).words
    assert both is not None
    assert both.facts["rule"] == "as they are"
    with pytest.raises(Refused, match="`told` has 4 rows of words and `wide` 5, and `wide` has no tokenizer files"):
        planned([told, wide])
    with pytest.raises(Refused, match="`bare` has no tokenizer files, and the tokens of the others differ"):
        planned([told, other, bare])


def test_without_words_there_is_nothing_to_say(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    save_file({"conv.weight": torch.ones(4, 3)}, folder / "model.safetensors")
    plan = planned([folder, folder])
    assert plan.words is None
    assert plan.warnings == ()


def test_what_cannot_be_read_or_matched_is_said(tmp_path: Path) -> None:
    a = write(tmp_path / "a", 4, listed("a", "b", "c", "d"))
    cases: list[tuple[type[Problem], str, Mapping[str, Any]]] = [
        (Unreadable, "`spiece.model` does not list its tokens", {"spiece.model": "proto"}),
        (Unreadable, "`x.tiktoken` does not list its tokens", {"x.tiktoken": "proto"}),
        (Unreadable, "'-1' is no id of a token", {"vocab.json": {"a": -1}}),
        (Unreadable, "'True' is no id of a token", {"vocab.json": {"a": True}}),
        (Unreadable, "'99999999999' is no id of a token", {"vocab.json": {"a": 99999999999}}),
        (Unreadable, "`b` and `a` both have the id 0", {"vocab.json": {"a": 0, "b": 0}}),
        (Unreadable, "it holds no vocabulary", {"tokenizer.json": {"model": {"vocab": 7}}}),
        (Unreadable, "it holds no vocabulary", {"tokenizer.json": {"model": []}}),
        (Unreadable, "cannot be read as JSON", {"tokenizer.json": "{"}),
        (Unreadable, "'None' is no id of a token", {"tokenizer.json": {"model": {"vocab": {}}, "added_tokens": [{}]}}),
    ]
    for number, (problem, what, files) in enumerate(cases):
        b = write(tmp_path / f"b{number}", 4, files)
        with pytest.raises(problem) as caught:
            planned([a, b])
        assert what in str(caught.value), str(caught.value)
    outside = write(tmp_path / "outside", 4)
    (outside / "vocab.json").symlink_to(tmp_path / "a" / "vocab.json")
    with pytest.raises(Unreadable, match="leads out of the folder"):
        planned([a, outside])
    with pytest.raises(Unfit, match="there is no base"):
        planned([a, a], vocabulary="base")
    with pytest.raises(Unfit, match="vocabulary is `onion`"):
        planned([a, a], vocabulary="onion")  # type: ignore[arg-type]  # the mistake
    c = write(tmp_path / "c", 4, listed("d", "c", "b", "a"))
    with pytest.raises(Refused, match=r"`a` has no tokenizer\.json"):
        planned([a, write(tmp_path / "d", 5, listed("a", "b", "c", "d", "e"))], vocabulary="union")
    for folder in (a, c):
        table = load_file(folder / "model.safetensors")
        save_file({**table, "odd.weight": torch.ones(2, 4)}, folder / "model.safetensors")
    with pytest.raises(Refused, match=r"tensor `odd\.weight` of `a` has an axis of 4, as long as the vocabulary"):
        planned([a, c])
    for folder in (a, c):
        (folder / "config.json").write_text(json.dumps({"vocab_size": 4, "hidden_size": 4}))
    assert planned([a, c]).made[-2].name == "odd.weight"


def test_hostile_tokenizers_do_not_join(tmp_path: Path) -> None:
    plain = {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"}
    bpe = {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": [["a"]]}
    more = {"vocab": {"a": 0, "c": 1}}
    cases: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        ({"model": {**plain, "unk_token": 7}}, {"model": {**plain, "unk_token": 7, **more}}, "cannot be read"),
        ({"model": bpe}, {"model": {**bpe, **more}}, "are no pairs"),
        ({"model": plain, "added_tokens": ["x"]}, {"model": {**plain, **more}}, "cannot be read"),
        ({"model": {"vocab": {"a": 0}}}, {"model": {"vocab": {"c": 0}}}, "the tokenizers are None and None"),
    ]
    for number, (mine, theirs, what) in enumerate(cases):
        one = write(tmp_path / f"one{number}", 2, {"tokenizer.json": mine})
        two = write(tmp_path / f"two{number}", 2, {"tokenizer.json": theirs})
        with pytest.raises(Refused, match=what):
            planned([one, two], vocabulary="union")


def test_sizes_in_parts_of_a_configuration_change_with_them(tmp_path: Path) -> None:
    parts = {"text_config": {"vocab_size": 3, "bos_token_id": 1}, "speech_config": {"vocab_size": 99}}
    one = write(
        tmp_path / "one", 3, {"tokenizer.json": vocabulary("WordLevel", list("abc")).to_str()}, **parts, **SHAPE
    )
    two = write(tmp_path / "two", 4, {"tokenizer.json": vocabulary("WordLevel", list("bcde")).to_str()})
    made = merge([one], "task_arithmetic", base=two, vocabulary="base", out=tmp_path / "out").where
    said = json.loads((made / "config.json").read_text())
    assert said["vocab_size"] == said["text_config"]["vocab_size"] == 4
    assert said["text_config"]["bos_token_id"] == 0  # of `b`
    assert said["speech_config"]["vocab_size"] == 99


def test_an_embedding_along_the_second_axis(tmp_path: Path) -> None:
    """As the bias of logits in BART."""
    folders = [write(tmp_path / n, 4, listed(*w)) for n, w in (("a", "abcd"), ("b", "cdab"))]
    for k, folder in enumerate(folders):
        table = load_file(folder / "model.safetensors")
        bias = torch.tensor([[0.0, 1.0, 2.0, 3.0]]) + 10 * k
        save_file({**table, "final_logits_bias": bias}, folder / "model.safetensors")
    made = merge(folders, out=tmp_path / "out").where
    assert load_file(made / "model.safetensors")["final_logits_bias"].tolist() == [[6.0, 7.0, 6.0, 7.0]]


def test_the_forecast_of_bytes_counts_rows_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from combination.test_merge import Counting

    folders = [
        write(tmp_path / n, len(w), {"tokenizer.json": vocabulary("WordLevel", w).to_str()}, seed=i)
        for i, (n, w) in enumerate((("base", list("abcd")), ("one", list("dcbae")), ("two", list("aef"))))
    ]
    plan = planned(folders[1:], "ties", base=folders[0], vocabulary="union")
    cost = forecasts.forecast(plan, tmp_path / "out")
    monkeypatch.setattr(adapted, "Checkpoint", Counting)
    Counting.count = 0
    merge(folders[1:], "ties", base=folders[0], vocabulary="union", out=tmp_path / "out")
    assert Counting.count == cost.bytes_read


def test_a_recipe_says_it_too(tmp_path: Path) -> None:
    for i, n in enumerate(("abcd", "abe")):
        write(tmp_path / n, len(n), {"tokenizer.json": vocabulary("WordLevel", list(n)).to_str()}, seed=i)
    (tmp_path / "r.yaml").write_text("method: linear\nmodels: [abcd, abe]\nvocabulary: union\n")
    made = merge_recipe(tmp_path / "r.yaml", out=tmp_path / "out")
    assert load_file(made.where / "model.safetensors")["embed_tokens.weight"].shape == (5, 3)
    assert np.all([m["tokens"] for m in made.receipt.facts["vocabulary"]["models"]] == [4, 3])


def test_a_method_that_reads_rows_keeps_the_first_models_tokens(tmp_path: Path) -> None:
    folders = [
        write(tmp_path / n, len(n), {"tokenizer.json": vocabulary("WordLevel", list(n)).to_str()}, seed=i)
        for i, n in enumerate(("abcd", "abe"))
    ]
    with pytest.raises(Refused, match="rows are read with the tokenizer of `abcd`"):
        planned(folders, "fisher", vocabulary="union")
    plan = planned(folders, "fisher", vocabulary="first")
    assert plan.fates["embed_tokens.weight"].rule == "`fisher`, rows by token"


@pytest.mark.parametrize("form", ["ours", "mergekit's"])
def test_layers_of_models_with_other_orders_have_one_vocabulary(form: str, tmp_path: Path) -> None:
    """The input embedding is the first model's and the output embedding the second's, in the order of the first."""
    one, two = save(tmp_path / "one", ANIMALS, seed=1), save(tmp_path / "two", ANIMALS[::-1], seed=2)
    ours = "slices: [{model: one, layers: [0, 1]}, {model: two, layers: [1, 2]}]"
    theirs = """
merge_method: passthrough
slices:
- sources: [{model: one, layer_range: [0, 1]}]
- sources: [{model: two, layer_range: [1, 2]}]
"""
    (tmp_path / "r.yaml").write_text(ours if form == "ours" else theirs)
    made = merge_recipe(tmp_path / "r.yaml", out=tmp_path / "out").where
    for which, whose in (("input", one), ("output", two)):
        out, wanted = rows_of(made, which), rows_of(whose, which)
        assert all(torch.equal(out[t], wanted[t]) for t in [*SPECIAL, *ANIMALS])
    assert (made / "tokenizer.json").read_bytes() == (one / "tokenizer.json").read_bytes()


def test_a_made_model_with_a_vocabulary_of_its_own_is_no_input(tmp_path: Path) -> None:
    save(tmp_path / "one", ANIMALS, seed=1)
    save(tmp_path / "two", [*ANIMALS, "emu"], seed=2)
    (tmp_path / "r.yaml").write_text("""
merge_method: linear
name: both
models: [{model: one, parameters: {weight: 1}}, {model: two, parameters: {weight: 1}}]
tokenizer_source: union
---
merge_method: linear
models: [{model: both, parameters: {weight: 1}}, {model: two, parameters: {weight: 1}}]
""")
    with pytest.raises(Refused, match="`both` gets a vocabulary of its own"):
        merge_recipe(tmp_path / "r.yaml", out=tmp_path / "out")
