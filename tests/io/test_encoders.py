"""Features against the models' own libraries: transformers, sentence-transformers, and the official processors."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headstart.core import Encoder, Problem, Refused, Source, Unfit, Unreadable
from headstart.io import sources
from headstart.io.encoders import batches
from tiny_models import WORDS, config_for, images, save_model, save_tokenizer, texts

Shelf = Callable[..., Path]
SAME = {"rtol": 1e-5, "atol": 1e-5}
TEXT_TYPES = ["bert", "roberta", "distilbert", "mpnet", "deberta-v2", "electra", "albert"]
IMAGE_TYPES = ["vit", "deit", "dinov2", "resnet", "convnext", "swin"]


def source_of(folder: Path) -> Source:
    (source,), failed = sources.scan(folder)
    assert not failed, failed
    return source


def features_of(folder: Path, inputs: pa.Table, **options: Any) -> Any:
    with sources.opened(source_of(folder)) as here:
        return here.features(inputs, **options)


def bare_loop(folder: Path, inputs: pa.Table, pooling: str) -> Any:
    """One text at a time through transformers."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    rows = []
    for text in inputs["text"].to_pylist():
        called = tokenizer(text, truncation=True, max_length=32, return_tensors="pt")
        known = {k: v for k, v in called.items() if k != "token_type_ids" or hasattr(model.config, "type_vocab_size")}
        with torch.no_grad():
            hidden = model(**known).last_hidden_state[0]
        rows.append((hidden[0] if pooling == "cls" else hidden.mean(0)).numpy())
    return np.stack(rows)


@pytest.mark.parametrize("model", TEXT_TYPES)
def test_text_features_equal_a_bare_loop(shelf: Shelf, model: str) -> None:
    rows = texts(9)
    np.testing.assert_allclose(features_of(shelf(model), rows), bare_loop(shelf(model), rows, "mean"), **SAME)


SEES_PADDING = {
    "big_bird": {"attention_type": "block_sparse", "block_size": 4, "num_random_blocks": 1},
    "convbert": {"head_ratio": 1, "conv_kernel_size": 3},
    "fnet": {},
    "mobilebert": {"true_hidden_size": 8, "intra_bottleneck_size": 8},
    "nystromformer": {"num_landmarks": 8, "segment_means_seq_len": 8, "conv_kernel_size": 5},
}


def alone(folder: Path, kind: Any, text: str) -> Any:
    """What a fresh model of transformers says of one text, without padding."""
    from transformers import AutoTokenizer

    called = AutoTokenizer.from_pretrained(folder)(text, truncation=True, max_length=64, return_tensors="pt")
    if "fnet" in str(folder):
        called.pop("attention_mask")
    with torch.no_grad():
        return kind.from_pretrained(folder).eval()(**called)


@pytest.mark.parametrize("model", SEES_PADDING)
def test_rows_beside_a_row_change_nothing_where_a_model_sees_padding(tmp_path: Path, model: str) -> None:
    from transformers import AutoModel, AutoModelForSequenceClassification, AutoModelForTokenClassification

    rows, settings = texts(7, longest=50), {**SEES_PADDING[model], "max_position_embeddings": 64}
    one, rated, tagged = (tmp_path / f"{model}-{name}" for name in ("bare", "rows", "words"))
    save_tokenizer(save_model(one, model, **settings), longest=64)
    save_tokenizer(save_model(rated, model, head=True, **settings), longest=64)
    save_tokenizer(save_model(tagged, model, tags=("O", "B-x", "I-x"), **settings), longest=64)
    some = rows["text"].to_pylist()
    expected = np.stack([alone(one, AutoModel, t).last_hidden_state[0].mean(0).numpy() for t in some])
    with sources.opened(source_of(one)) as here:
        assert model != "big_bird" or not here.exports()  # which would hold one attention for texts of all lengths
        for _ in range(2):  # what a model was called with before changes nothing either
            np.testing.assert_allclose(here.features(rows), expected, **SAME)
        words = here.features(pa.table({"tokens": [t.split() for t in some]}))
        first = alone(one, AutoModel, some[0]).last_hidden_state[0, 1:-1]
        np.testing.assert_allclose(words[: len(first)], first, **SAME)
    said = [alone(rated, AutoModelForSequenceClassification, t).logits[0].double() for t in some]
    with sources.opened(source_of(rated)) as here:
        np.testing.assert_allclose(here.predictions(rows), torch.stack(said).softmax(-1), **SAME)
    said = [alone(tagged, AutoModelForTokenClassification, t).logits[0, 1:-1].double() for t in some]
    with sources.opened(source_of(tagged)) as here:
        found = here.predictions(pa.table({"tokens": [t.split() for t in some]}))
        np.testing.assert_allclose(found, torch.cat(said).softmax(-1), **SAME)


def said_by_tokenizer(folder: Path, to: Path, **settings: Any) -> Path:
    """A copy of a model whose tokenizer's configuration says these too."""
    shutil.copytree(folder, to)
    file = to / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    return to


@pytest.mark.parametrize("model", ["bert", "deberta-v2", "roformer"])
def test_rows_beside_a_row_change_nothing_whatever_the_side_of_padding(
    shelf: Shelf, tmp_path: Path, model: str
) -> None:
    """On the left, padding would move the places of the tokens."""
    rows, left = texts(9), said_by_tokenizer(shelf(model), tmp_path / "left", padding_side="left")
    np.testing.assert_allclose(features_of(left, rows), bare_loop(left, rows, "mean"), **SAME)


def test_the_end_of_a_long_text_is_kept_where_its_tokenizer_says_so(shelf: Shelf, tmp_path: Path) -> None:
    folder = said_by_tokenizer(shelf("bert"), tmp_path / "end", truncation_side="left")
    rows = pa.table({"text": [" ".join(random.Random(i).choices(WORDS, k=1000)) for i in range(3)]})
    np.testing.assert_allclose(features_of(folder, rows), bare_loop(folder, rows, "mean"), **SAME)
    ends = pa.table({"text": [" ".join(text.split()[-30:]) for text in rows["text"].to_pylist()]})
    np.testing.assert_allclose(features_of(folder, rows), features_of(folder, ends), **SAME)


@pytest.mark.parametrize("model", ["bert", "fnet"])
def test_a_text_without_a_token_is_an_unknown_one(tmp_path: Path, model: str) -> None:
    """Where a tokenizer adds no special tokens; alone it stopped the source, else it was as others are."""
    file = save_model(tmp_path, model) / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"post_processor": None}))
    rows = pa.table({"text": ["", "zzz", "the cat", None]})
    with sources.opened(source_of(tmp_path)) as here:
        found = here.features(rows)
        np.testing.assert_allclose(found[[0, 3]], found[[1, 1]], **SAME)
        np.testing.assert_allclose(here.features(rows.slice(0, 1)), found[:1], **SAME)
        words = here.features(pa.table({"tokens": [[], ["cat"]]}))
        assert words.shape == (1, 16)
        assert np.isfinite(words).all()


def test_attention_that_mixes_rows_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path / "m", "nystromformer", num_landmarks=4, segment_means_seq_len=16)
    (_, problem), *_ = sources.scan(tmp_path / "m")[1]
    assert isinstance(problem, Refused)
    assert "segment_means_seq_len" in str(problem)


def test_a_checkpoint_with_a_head_gives_the_first_token(shelf: Shelf) -> None:
    rows, folder = texts(5), shelf("bert", head=True)
    np.testing.assert_allclose(features_of(folder, rows), bare_loop(folder, rows, "cls"), **SAME)


def spoilt(folder: Path, to: Path, value: float, ends: str = "output.dense.weight") -> Path:
    """A copy of a model, one of whose weights is no number."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(folder, to)
    file = to / "model.safetensors"
    tensors = load_file(file)
    name = max(n for n in tensors if n.endswith(ends))
    tensors[name][0, 0] = value
    save_file(tensors, file, metadata={"format": "pt"})
    return to


def test_a_head_that_says_no_numbers_is_unreadable_and_leaves_the_features(shelf: Shelf, tmp_path: Path) -> None:
    folder = spoilt(shelf("bert", head=True), tmp_path / "spoilt", np.nan, "classifier.weight")
    with sources.opened(source_of(folder)) as here:
        assert np.isfinite(here.features(texts(3))).all()
        with pytest.raises(Unreadable, match="its predictions are not finite numbers on 3 of 3 rows"):
            here.predictions(texts(3))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_no_numbers_are_unreadable(shelf: Shelf, tmp_path: Path, value: float) -> None:
    folder = spoilt(shelf("bert"), tmp_path / "spoilt", value)
    with pytest.raises(Unreadable, match="not finite numbers on 3 of 3 rows"):
        features_of(folder, texts(3))
    with pytest.raises(Unreadable, match="not finite numbers on 3 of 3 words"):
        features_of(folder, pa.table({"tokens": [[WORDS[0], WORDS[1]], [WORDS[2]]]}))


@pytest.mark.parametrize("model", IMAGE_TYPES)
def test_image_features_equal_transformers_with_the_official_processor(
    shelf: Shelf, tmp_path: Path, model: str
) -> None:
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModel

    rows, folder = images(tmp_path, 3, sizes=((20, 24), (9, 31))), shelf(model)
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    pictures = []
    for value in rows["image"].to_pylist():
        held = tmp_path / "held.png"
        if value["bytes"]:
            held.write_bytes(value["bytes"])
        pictures.append(Image.open(value["path"] or held).convert("RGB").copy())
    with torch.no_grad():
        out = AutoModel.from_pretrained(folder).eval()(**processor(images=pictures, return_tensors="pt"))
    first = model in ("vit", "deit", "dinov2")
    expected = (out.last_hidden_state[:, 0] if first else out.pooler_output.flatten(1)).numpy()
    np.testing.assert_allclose(features_of(folder, rows), expected, **SAME)


def test_two_copies_with_different_mean_and_std_give_different_features(shelf: Shelf, tmp_path: Path) -> None:
    rows = images(tmp_path, 3)
    other = tmp_path / "other"
    shutil.copytree(shelf("vit"), other)
    settings = json.loads((other / "preprocessor_config.json").read_text())
    settings |= {"image_mean": [0.2, 0.4, 0.6], "image_std": [0.2, 0.3, 0.1]}
    (other / "preprocessor_config.json").write_text(json.dumps(settings))
    assert np.abs(features_of(shelf("vit"), rows) - features_of(other, rows)).max() > 1e-2


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (3, 3), (3, 50)])
def test_images_of_odd_shapes_have_features(shelf: Shelf, tmp_path: Path, size: tuple[int, int]) -> None:
    found = features_of(shelf("vit"), images(tmp_path, 2, sizes=(size,)))
    assert found.shape == (2, 16)
    assert np.isfinite(found).all()


def test_images_of_several_sizes_after_the_processor_are_unfit(shelf: Shelf, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(shelf("convnext"), folder)
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"do_resize": False}))
    rows = images(tmp_path, 4, sizes=((20, 24), (30, 18)))
    with pytest.raises(Unfit, match="sizes of their own, such as 30 × 18"):
        features_of(folder, rows)
    assert features_of(folder, rows.take([0, 2])).shape == (2, 12)


def test_a_broken_image_is_unreadable(shelf: Shelf) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = pa.table({"image": pa.array([{"bytes": b"no image", "path": None}], type=kind)})
    with pytest.raises(Problem):
        features_of(shelf("vit"), rows)


def minilm_rows(count: int) -> pa.Table:
    draw = random.Random(1)
    odd = ["", "  spaces  ", "Ünïcode — ‘quotes’ 漢字", "UPPER lower", "a" * 300, "word " * 700, "?!", "\n\t"]
    return pa.table({"text": odd + [" ".join(draw.choices(WORDS, k=draw.randint(1, 60))) for _ in range(count)]})


def test_minilm_equals_sentence_transformers(minilm: Path) -> None:
    library = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")
    rows = minilm_rows(8)
    expected = library.SentenceTransformer(str(minilm), device="cpu").encode(rows["text"].to_pylist())
    np.testing.assert_allclose(features_of(minilm, rows), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("mode", "dense", "lower", "prompt"),
    [
        ("cls", False, False, None),
        ("max", False, True, None),
        ("mean_sqrt_len_tokens", True, False, None),
        ("weightedmean", False, False, "the "),
        ("lasttoken", False, False, None),
        (("mean", "max"), True, True, "a cat "),
    ],
)
def test_every_pooling_equals_sentence_transformers(
    shelf: Shelf, tmp_path: Path, mode: Any, dense: bool, lower: bool, prompt: str | None
) -> None:
    library = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")
    from sentence_transformers.models import Dense, Normalize, Pooling, Transformer

    pooling = Pooling(16, pooling_mode=mode, include_prompt=prompt is None)
    parts = [Transformer(str(shelf("bert")), max_seq_length=20, do_lower_case=lower), pooling]
    if dense:
        parts += [Dense(pooling.get_embedding_dimension(), 7), Normalize()]
    prompts = {"prompts": {"p": prompt}, "default_prompt_name": "p"} if prompt else {}
    library.SentenceTransformer(modules=parts, device="cpu", **prompts).save(str(tmp_path / "st"))
    rows = texts(7)
    expected = library.SentenceTransformer(str(tmp_path / "st"), device="cpu").encode(rows["text"].to_pylist())
    source = source_of(tmp_path / "st")
    assert source.facts["normalise"] is dense
    assert source.facts["max_length"] == 20
    np.testing.assert_allclose(features_of(tmp_path / "st", rows), expected, atol=1e-5)


def test_features_do_not_depend_on_the_order_of_the_rows(shelf: Shelf) -> None:
    rows, turn = texts(20), list(range(20))
    random.Random(3).shuffle(turn)
    with sources.opened(source_of(shelf("bert"))) as here:
        np.testing.assert_array_equal(here.features(rows)[turn], here.features(rows.take(turn)))


@given(
    st.lists(st.tuples(st.integers(0, 50), st.binary(max_size=2)), max_size=9), st.integers(1, 200), st.integers(0, 40)
)
def test_batches_are_the_cheapest_cut_that_keeps_to_the_budget(
    keys: list[tuple[int, bytes]], most: int, each: int
) -> None:
    def cost(some: list[list[int]]) -> int:
        return sum(max(max(keys[r][0], 1) for r in batch) * len(batch) + each for batch in some)

    def fits(batch: list[int]) -> bool:
        return len(batch) == 1 or max(max(keys[r][0], 1) for r in batch) * len(batch) <= most

    order = sorted(range(len(keys)), key=lambda i: (-keys[i][0], keys[i][1]))
    cuts = []
    for marks in itertools.product((False, True), repeat=max(0, len(keys) - 1)):
        at = [0, *(i + 1 for i, cut in enumerate(marks) if cut), len(keys)]
        cuts.append([order[a:b] for a, b in itertools.pairwise(at) if b > a])
    made = batches(keys, most, each)
    assert [r for batch in made for r in batch] == order
    assert all(fits(batch) for batch in made)
    assert cost(made) == min(cost(cut) for cut in cuts if all(fits(batch) for batch in cut))


def test_text_pairs_reach_the_model_as_pairs(shelf: Shelf) -> None:
    from transformers import AutoModel, AutoTokenizer

    rows = pa.table({"text": ["the cat sat", "a hill"], "text_pair": ["on the mat", "was big and red"]})
    tokenizer, model = AutoTokenizer.from_pretrained(shelf("bert")), AutoModel.from_pretrained(shelf("bert")).eval()
    expected = []
    for one, other in zip(*rows.to_pydict().values(), strict=True):
        with torch.no_grad():
            expected.append(model(**tokenizer(one, other, return_tensors="pt")).last_hidden_state[0].mean(0).numpy())
    np.testing.assert_allclose(features_of(shelf("bert"), rows), np.stack(expected), **SAME)


def test_pairs_reach_a_model_of_one_kind_of_tokens_as_its_own_library_reads_them(shelf: Shelf) -> None:
    """RoBERTa knows one kind: a tokenizer that tells two apart stopped every source of pairs."""
    from transformers import AutoModel, AutoTokenizer

    folder, rows = shelf("roberta", type_vocab_size=1), {"text": ["the cat sat"], "text_pair": ["on the mat"]}
    called = AutoTokenizer.from_pretrained(folder)("the cat sat", "on the mat", return_tensors="pt")
    assert called.pop("token_type_ids").max() == 1
    with torch.no_grad():
        expected = AutoModel.from_pretrained(folder).eval()(**called).last_hidden_state[0].mean(0, keepdim=True)
    np.testing.assert_allclose(features_of(folder, pa.table(rows)), expected, **SAME)


def test_a_million_characters_take_no_time_and_are_truncated_as_the_whole_text_is(shelf: Shelf) -> None:
    long = [("the cat " * 125_000), " " * 999_000 + "the cat", "x" * 10**6, ("y" * 600 + " ") * 1000]
    rows = pa.table({"text": long})
    begun = time.monotonic()
    found = features_of(shelf("bert"), rows)
    assert time.monotonic() - begun < 5  # the whole text is read only where its tokens are rare
    np.testing.assert_allclose(found, bare_loop(shelf("bert"), rows, "mean"), **SAME)


def test_missing_texts_are_empty_ones(shelf: Shelf) -> None:
    found = features_of(shelf("bert"), pa.table({"text": pa.array([None, "", "the cat"])}))
    np.testing.assert_array_equal(found[0], found[1])
    assert features_of(shelf("bert"), pa.table({"text": pa.array([], pa.string())})).shape == (0, 16)


def test_bfloat16_is_near_and_says_how_near(shelf: Shelf) -> None:
    rows = texts(16)
    with sources.opened(source_of(shelf("bert"))) as here:
        assert here.features(rows, dtype="bfloat16").dtype == np.float32
        assert 0 < here.fidelity(rows) < 0.2  # bfloat16 keeps 8 bits
        assert here.backend("bfloat16") != here.backend("float32")


def test_progress_counts_every_row(shelf: Shelf) -> None:
    seen: list[tuple[int, int]] = []
    features_of(shelf("bert"), texts(6), progress=lambda done, rows: seen.append((done, rows)), threads=1)
    assert seen[-1] == (6, 6)


def test_rows_of_another_modality_are_unfit(shelf: Shelf, tmp_path: Path) -> None:
    with pytest.raises(Unfit):
        features_of(shelf("bert"), images(tmp_path, 1))
    with pytest.raises(Unfit):
        features_of(shelf("vit"), texts(1))


def test_missing_tensors_are_never_filled_at_random(shelf: Shelf, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "lost"
    shutil.copytree(shelf("bert"), folder)
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("encoder.layer.1.attention.self.query.weight")
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(Unreadable, match="query"):
        features_of(folder, texts(1))


@pytest.mark.parametrize("model", [*TEXT_TYPES, *IMAGE_TYPES])
def test_a_fresh_encoder_gives_the_same_features_and_names_every_parameter_once(
    shelf: Shelf, tmp_path: Path, model: str
) -> None:
    rows = images(tmp_path, 4) if model in IMAGE_TYPES else texts(4)
    with sources.opened(source_of(shelf(model))) as here:
        encoder: Encoder = here.encoder()
        expected = here.features(rows)
    batch = encoder.collate(rows, [2, 0])
    found = encoder.forward_features(batch)
    assert len(batch) == 2
    np.testing.assert_allclose(found.detach().numpy(), expected[[2, 0]], **SAME)
    named = [n for group in encoder.layers for n in group]
    assert sorted(named) == sorted(n for n, p in encoder.module.named_parameters() if p.requires_grad)
    assert len(encoder.layers) >= 2
    assert "embed" in encoder.layers[0][0]
    assert encoder.linear_layers
    kinds = {type(encoder.module.get_submodule(n)) for n in encoder.linear_layers}
    assert kinds == ({torch.nn.Conv2d} if model == "resnet" else {torch.nn.Linear})
    assert len(encoder.costs(rows)) == 4
    found.sum().backward()
    assert any(p.grad is not None for p in encoder.module.parameters())


def test_training_a_copy_leaves_the_source_as_it_is(shelf: Shelf) -> None:
    rows = texts(3)
    with sources.opened(source_of(shelf("bert"))) as here:
        before = here.features(rows)
        encoder = here.encoder()
        with torch.no_grad():
            for parameter in encoder.module.parameters():
                parameter.mul_(2)
        np.testing.assert_array_equal(here.features(rows), before)


@pytest.mark.parametrize("model", ["bert", "distilbert", "vit", "resnet"])
def test_a_stored_head_predicts_in_its_own_label_space(shelf: Shelf, tmp_path: Path, model: str) -> None:
    from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification, AutoTokenizer

    folder = shelf(model, head=True)
    rows = images(tmp_path, 3) if model in IMAGE_TYPES else texts(3)
    with sources.opened(source_of(folder)) as here:
        found = here.predictions(rows)
        pixels = here.encoder().collate(rows, [0, 1, 2]) if model in IMAGE_TYPES else None
    with torch.no_grad():
        if pixels is not None:
            whole = AutoModelForImageClassification.from_pretrained(folder).eval()
            expected = whole(pixel_values=pixels.pixels).logits.softmax(-1)  # type: ignore[union-attr]  # an image batch
        else:
            tokens = AutoTokenizer.from_pretrained(folder)(
                rows["text"].to_pylist(), padding=True, truncation=True, return_tensors="pt",
            )  # fmt: skip
            tokens.pop("token_type_ids") if model == "distilbert" else None
            whole = AutoModelForSequenceClassification.from_pretrained(folder).eval()
            expected = whole(**tokens).logits.softmax(-1)
    np.testing.assert_allclose(found, expected.numpy(), **SAME)
    np.testing.assert_allclose(found.sum(axis=1), 1)


@pytest.mark.parametrize("settings", [{"num_labels": 1}, {"num_labels": 3, "problem_type": "regression"}])
def test_numbers_are_not_taken_for_probabilities_of_classes(tmp_path: Path, settings: dict[str, Any]) -> None:
    """LEEP and energy of three numbers a row were above those of any classifier."""
    from transformers import AutoModelForSequenceClassification

    save_tokenizer(tmp_path)
    AutoModelForSequenceClassification.from_config(config_for("bert", **settings)).save_pretrained(tmp_path)
    with sources.opened(source_of(tmp_path)) as here:
        assert here.features(texts(3)).shape == (3, 16)
        with pytest.raises(Refused, match="tells numbers"):
            here.predictions(texts(3))


def test_a_source_without_a_head_predicts_nothing(shelf: Shelf) -> None:
    with sources.opened(source_of(shelf("bert"))) as here, pytest.raises(Refused):
        here.predictions(texts(1))


def test_no_encoder_reaches_for_the_network(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def blocked(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(socket.socket, "connect", blocked)
    monkeypatch.setattr(socket, "getaddrinfo", blocked)
    features_of(shelf("bert"), texts(2))
    features_of(shelf("vit"), images(tmp_path, 2))
