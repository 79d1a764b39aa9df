"""Signatures: what they must not depend on, and how near real sets are by the shipped reference."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headstart.core import Unfit
from headstart.inventory.recall import reference, references
from headstart.numerics.signatures import BLOCKS, SIDE, Reference, near, reference_of, signature, similarity

DATA = Path(__file__).parents[2].parent / "shared" / "data"
Array = np.ndarray[Any, Any]


class Rows:
    """As much of `core.Raw` as a signature reads."""

    def __init__(self, table: pa.Table | None = None, *, texts: list[str] = (), pictures: Array | None = None) -> None:  # type: ignore[assignment]  # an empty tuple is no texts
        self.columns, self.texts, self._pictures = table, list(texts), pictures

    def __len__(self) -> int:
        if self._pictures is not None:
            return len(self._pictures)
        return len(self.texts) or (0 if self.columns is None else self.columns.num_rows)

    def images(self, side: int) -> Array:
        assert side == SIDE
        assert self._pictures is not None
        return self._pictures


def some_rows(modality: str, rng: np.random.Generator, rows: int = 40) -> Rows:
    if modality == "text":
        return Rows(texts=["".join(rng.choice(list("abcdé 你"), size=rng.integers(1, 30))) for _ in range(rows)])
    if modality == "image":
        return Rows(pictures=rng.integers(0, 255, size=(rows, SIDE, SIDE, 3)).astype(np.uint8))
    columns = {
        "a": rng.normal(size=rows),
        "b": rng.integers(0, 5, size=rows).astype(float),
        "c": ["x", None] * (rows // 2),
    }
    return Rows(pa.table(columns))


@pytest.mark.parametrize("modality", list(BLOCKS))
@pytest.mark.parametrize("task", ["single_label", "regression", "multi_label", "unlabelled", "tagging"])
def test_every_kind_of_target_has_a_finite_signature(modality: str, task: str) -> None:
    rng = np.random.default_rng(0)
    labels: dict[str, Array | None] = {
        "single_label": np.arange(40) % 3,
        "regression": rng.normal(size=40),
        "multi_label": rng.integers(0, 2, size=(40, 4)).astype(np.int8),
        "unlabelled": None,
        "tagging": np.array([["O"]] * 40, dtype=object),
    }
    found = signature(some_rows(modality, rng), labels[task], task, modality)  # type: ignore[arg-type]  # Rows is enough
    assert found.shape == (sum(BLOCKS[modality]),)
    assert found.dtype == np.float64
    assert np.isfinite(found).all()


@pytest.mark.parametrize("modality", list(BLOCKS))
def test_the_order_of_rows_does_not_matter(modality: str) -> None:
    rng = np.random.default_rng(1)
    rows, labels, turn = some_rows(modality, rng), np.arange(40) % 3, rng.permutation(40)
    turned = Rows(
        None if rows.columns is None else rows.columns.take(turn),
        texts=[rows.texts[i] for i in turn] if rows.texts else [],
        pictures=None if rows._pictures is None else rows._pictures[turn],
    )
    one = signature(rows, labels, "single_label", modality)  # type: ignore[arg-type]  # Rows is enough
    other = signature(turned, labels[turn], "single_label", modality)  # type: ignore[arg-type]  # Rows is enough
    np.testing.assert_allclose(one, other, atol=1e-7)  # square roots of sums in another order, near zero


@pytest.mark.parametrize("modality", list(BLOCKS))
def test_the_numbers_and_the_order_of_classes_do_not_matter(modality: str) -> None:
    rng = np.random.default_rng(4)
    rows, labels, names = some_rows(modality, rng), rng.integers(0, 3, size=40), ["red", "green", "blue"]
    other = np.array([2, 0, 1])[labels], [names[1], names[2], names[0]]
    np.testing.assert_allclose(
        signature(rows, labels, "single_label", modality, names),  # type: ignore[arg-type]  # Rows is enough
        signature(rows, other[0], "single_label", modality, other[1]),  # type: ignore[arg-type]  # Rows is enough
        atol=1e-7,  # square roots of sums in another order, near zero
    )


def test_names_of_classes_fill_the_last_block_alone_and_numbers_say_nothing() -> None:
    rows, labels = Rows(texts=["good", "bad"] * 20), np.arange(40) % 2
    numbers, words, turned = (
        signature(rows, labels, "single_label", "text", names)  # type: ignore[arg-type]  # Rows is enough
        for names in (["0", "1"], ["positive", "negative"], ["Negative", "positive"])
    )
    assert not numbers[-512:].any()
    np.testing.assert_array_equal(words[:-512], numbers[:-512])
    np.testing.assert_allclose(words, turned)


def test_a_block_that_one_of_two_lacks_is_left_out() -> None:
    table = Reference(np.full(4, 0.5), np.ones(4), 0.5, (2, 2), (1.0, 1.0))
    a, b = np.array([1.0, 0.0, 3.0, 1.0]), np.array([1.0, 0.0, 0.0, 0.0])
    assert similarity(a, b, table) == pytest.approx(1.0)
    assert similarity(a, np.zeros(4), table) == 0.0


def test_the_names_and_the_unit_of_columns_do_not_matter() -> None:
    rng = np.random.default_rng(2)
    values, labels = rng.normal(5, 1, size=(60, 3)), np.arange(60) % 2
    one = Rows(pa.table({f"c{i}": values[:, i] for i in range(3)}))
    other = Rows(pa.table({f"d{i}": values[:, i] * 1000 for i in range(3)}))
    np.testing.assert_allclose(
        signature(one, labels, "single_label", "table"),  # type: ignore[arg-type]  # Rows is enough
        signature(other, labels, "single_label", "table"),  # type: ignore[arg-type]  # Rows is enough
        atol=1e-6,
    )


def test_the_same_text_has_the_same_slots_on_every_machine() -> None:
    found = signature(Rows(texts=["Where is my card?"]), None, "single_label", "text")  # type: ignore[arg-type]  # Rows is enough
    shares = np.square(found[:512])
    assert not found[-512:].any()  # no names of classes
    assert shares.sum() == pytest.approx(1.0)
    slots = [8, 14, 18, 33, 36, 51, 59, 61]  # written down once: signatures in banks must keep their meaning
    assert np.flatnonzero(shares)[:8].tolist() == slots


@pytest.mark.parametrize(
    "columns", [{"a": pa.array([], pa.float64())}, {"a": [1e308, -1e308]}, {"a": [float("inf"), 1.0]}, {"a": ["x"]},
                {"a": [None, None]}, {"a": [None, "x"], "b": [1.0, 1.0]}, {}]
)  # fmt: skip
def test_odd_tables_have_finite_signatures(columns: dict[str, Any]) -> None:
    rows = Rows(pa.table(columns))
    labels = np.zeros(len(rows), dtype=np.int64)
    with np.errstate(all="ignore"):
        assert np.isfinite(signature(rows, labels, "single_label", "table")).all()  # type: ignore[arg-type]  # Rows is enough


def test_empty_targets_have_signatures() -> None:
    none = np.zeros(0, dtype=np.int64)
    pictures = Rows(pictures=np.zeros((0, SIDE, SIDE, 3), np.uint8))
    assert np.isfinite(signature(Rows(texts=[]), none, "single_label", "text")).all()  # type: ignore[arg-type]  # Rows is enough
    assert np.isfinite(signature(pictures, none, "single_label", "image")).all()  # type: ignore[arg-type]  # Rows is enough


def test_an_unknown_modality_is_unfit() -> None:
    with pytest.raises(Unfit, match="sound"):
        signature(Rows(texts=["a"]), None, "single_label", "sound")  # type: ignore[arg-type]  # Rows is enough


def test_sizes_alone_hardly_count() -> None:
    table = Reference(np.zeros(515), np.ones(515), 0.5, (512, 3), (1.0, 0.1))
    rng = np.random.default_rng(3)
    content, other = rng.normal(size=512), rng.normal(size=512)
    small, large = np.array([1.0, 0.0, 0.0]), np.array([-1.0, 0.0, 0.0])
    same_content = similarity(np.r_[content, small], np.r_[content, large], table)
    same_sizes = similarity(np.r_[content, small], np.r_[other, small], table)
    assert same_content == pytest.approx((1 - 0.01) / (1 + 0.01))
    assert abs(same_sizes) < 0.2


def test_a_tenth_of_the_reference_pairs_is_near() -> None:
    some = [np.random.default_rng(n).normal(size=sum(BLOCKS["table"])) for n in range(40)]
    table = reference_of(some, "table")
    pairs = [near(a, b, table) for a, b in combinations(some, 2)]
    assert np.mean(pairs) == pytest.approx(0.1, abs=0.01)
    again = Reference.from_dict(json.loads(json.dumps(table.as_dict())))
    assert [near(a, b, again) for a, b in combinations(some, 2)] == pairs


# -- real sets -------------------------------------------------------------------------------------------------------

FAMILIES = (
    {"sst2", "sst5", "mr", "subj", "cr"}, {"trec6", "trec50"}, {"sick_e", "sick_r"},
    {"goemotions", "goemotions_ekman_ml"},
    {"clinc150_small", "clinc_domain", "clinc_oos", "hwu64_scenario", "banking77", "nlupp_banking", "snips_intent"},
    {"mnist", "hoda_persian_digits", "notmnist"},
)  # fmt: skip
PREFIXES = ("id_", "tweet", "shape16", "omniglot", "afrisenti_")
FORMS = {"text": "text", "pair": "text", "pair_reg": "text", "multilabel": "text", "image": "image", "tabular": "table"}
SETS_ROWS = 400

needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="no folder ../shared/data with real sets beside the repository"
)


@cache
def real(name: str) -> tuple[str, Array] | None:
    """Modality and signature of a set; None for one of another form."""
    from PIL import Image

    meta = json.loads((DATA / name / "meta.json").read_text(encoding="utf-8"))
    modality = FORMS.get(meta.get("form", ""))
    if modality is None:
        return None
    table = pq.read_table(DATA / name / "train.parquet")
    at = np.unique(np.linspace(0, table.num_rows - 1, min(table.num_rows, SETS_ROWS)).astype(int))
    table = table.take(at)
    labels, task = table["label"].to_pylist(), "single_label"
    if "regression" in meta["task"] or meta["form"] == "pair_reg":
        task, y = "regression", np.array(labels, dtype=np.float64)
    else:
        y = np.unique([str(label) for label in labels], return_inverse=True)[1]
    if modality == "text":
        pairs = table["text_pair"].to_pylist() if "text_pair" in table.column_names else [""] * len(table)
        rows = Rows(texts=[f"{a}\n{b}" for a, b in zip(table["text"].to_pylist(), pairs, strict=True)])
    elif modality == "image":
        pictures = []
        for cell in table["image"].to_pylist():
            data = cell["bytes"] if isinstance(cell, dict) else cell
            image = Image.open(io.BytesIO(data)).convert("RGB")
            scale = SIDE / max(image.size)
            image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
            square = Image.new("RGB", (SIDE, SIDE))
            square.paste(image, ((SIDE - image.width) // 2, (SIDE - image.height) // 2))
            pictures.append(np.asarray(square))
        rows = Rows(pictures=np.stack(pictures))
    else:
        rows = Rows(table.drop(["label"]))
    return modality, signature(rows, y, task, modality, meta.get("classes") or ())  # type: ignore[arg-type]  # Rows is enough


def related(a: str, b: str) -> bool:
    return any({a, b} <= family for family in FAMILIES) or any(a.startswith(p) and b.startswith(p) for p in PREFIXES)


def real_pairs(names: Sequence[str], modality: str) -> dict[tuple[str, str], float]:
    found = {name: one[1] for name in names if (one := real(name)) is not None and one[0] == modality}
    return {(a, b): similarity(found[a], found[b], reference(modality)) for a, b in combinations(found, 2)}


def all_sets() -> list[str]:
    return sorted(path.parent.name for path in DATA.glob("*/meta.json"))


@pytest.mark.slow
@needs_data
@pytest.mark.parametrize(("modality", "most"), [("text", 0.15), ("image", 0.25), ("table", 0.25)])
def test_about_a_tenth_of_unrelated_real_pairs_is_near(modality: str, most: float) -> None:
    """Of 14 sets of images and 12 of tables a share has an interval of about ± 0.1."""
    pairs = real_pairs(all_sets(), modality)
    unrelated = [value for pair, value in pairs.items() if not related(*pair)]
    share = np.mean(np.array(unrelated) > reference(modality).near)
    assert 0.04 <= share <= most


@pytest.mark.slow
@needs_data
@pytest.mark.parametrize(("modality", "first", "now"), [("text", 0.87, 0.93), ("image", 0.79, 0.81)])
def test_related_real_pairs_are_more_alike_than_unrelated_ones_and_more_so_than_in_the_first_version(
    modality: str, first: float, now: float
) -> None:
    held = min(references(modality))  # entries of the first version, with which a signature still begins
    found = {name: one[1] for name in all_sets() if (one := real(name)) is not None and one[0] == modality}
    for length, documented in ((held, first), (len(reference(modality).mean), now)):
        alike: dict[bool, list[float]] = {True: [], False: []}
        for a, b in combinations(found, 2):
            value = similarity(found[a][:length], found[b][:length], references(modality)[length])
            alike[related(a, b)].append(value)
        ahead = np.mean(np.array(alike[True])[:, None] > np.array(alike[False]))
        assert ahead == pytest.approx(documented, abs=0.01)  # printed to two digits


@pytest.mark.slow
@needs_data
def test_sets_that_are_known_to_be_alike_rank_high_among_all() -> None:
    text, image = real_pairs(all_sets(), "text"), real_pairs(all_sets(), "image")
    for pair in (("mr", "sst2"), ("trec50", "trec6"), ("clinc150_small", "clinc_domain")):
        assert text[pair] > np.quantile(list(text.values()), 0.95), pair
    for pair in (("hoda_persian_digits", "mnist"), ("omniglot_small1", "omniglot_small2")):
        assert image[pair] > np.median(list(image.values())), pair


@needs_data
def test_sets_that_are_known_to_be_alike_are_near() -> None:
    text = real_pairs(("cr", "id_smsa", "sms_spam", "trec50", "trec6"), "text")
    assert max(text, key=lambda pair: text[pair]) == ("trec50", "trec6")
    assert text["trec50", "trec6"] > reference("text").near > np.median(list(text.values()))
    image = real_pairs(("blood_cells", "hoda_persian_digits", "mnist"), "image")
    assert max(image, key=lambda pair: image[pair]) == ("hoda_persian_digits", "mnist")
