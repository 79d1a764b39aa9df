"""Similarities that go through an encoder, beside brute force autograd and closed forms."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn import functional as F

import tiny_models
from headstart.core import Encoder, Needs, TaskSample, TaskType, Unfit
from headstart.io import sources
from headstart.numerics.artifacts import Head
from headstart.numerics.attribution import places
from headstart.numerics.inner import first_seen
from headstart.numerics.row_gradients import matrices, row_gradients, task_head
from headstart.ranking.similarity.attribution_similarity import AttributionSimilarity
from headstart.ranking.similarity.gradient_similarity import GradientSimilarity
from headstart.ranking.similarity.mask_overlap import MaskOverlap
from headstart.ranking.similarity.task2vec import Task2Vec
from headstart.testing.ranking_similarity import SeenTask, between, close, draw

Array = np.ndarray[Any, Any]


class Linear:
    """An encoder that is one matrix, for which the Fisher information is known."""

    width, layers, linear_layers = 3, (("weight",),), ()

    def __init__(self) -> None:
        self.module = torch.nn.Linear(6, 3, bias=False)
        drawn = np.random.default_rng(0).standard_normal((3, 6))
        self.module.weight.data = torch.from_numpy(drawn).float()

    def costs(self, inputs: pa.Table) -> Sequence[int]:
        return [1] * inputs.num_rows

    def collate(self, inputs: pa.Table, rows: Sequence[int]) -> Any:
        picked = inputs.take(list(rows))
        return torch.from_numpy(np.stack([c.to_numpy() for c in picked.columns], axis=1)).float()

    def forward_features(self, batch: Any) -> torch.Tensor:
        found: torch.Tensor = self.module(batch)
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Counted(SeenTask):
    """A task that leaves the encoder at hand in train mode, as a careless caller would."""

    @property
    def encoder(self) -> Any:
        made = copy.deepcopy(self.source)
        made.module.train()
        return made


@dataclass(frozen=True, kw_only=True, eq=False)
class Texts:
    """A task of texts before a model of transformers."""

    encoder: Any
    inputs: pa.Table
    features: Array
    labels: Array
    task: TaskType = "single_label"

    def __len__(self) -> int:
        return len(self.labels)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Any:
    shelf = tmp_path_factory.mktemp("shelf")
    tiny_models.save_model(shelf / "tiny", "bert", num_hidden_layers=1)
    found, _ = sources.scan(shelf)
    with sources.opened(found[0]) as opened:
        yield opened.encoder()


def test_gradients_of_rows_are_those_of_a_padded_batch_taken_apart(bert: Any) -> None:
    table = tiny_models.texts(6)
    chance = np.random.default_rng(0)
    head = Head(chance.standard_normal((3, 16)).astype(np.float32), np.zeros(3, dtype=np.float32))
    labels = np.array([0, 1, 2, 0, 1, 2])
    weights = matrices(bert)
    bert.module.train()
    found = list(row_gradients(bert, list(weights.values()), head, table, range(6), labels))
    assert bert.module.training, "the mode is as it was"
    bert.module.eval()
    logits = F.linear(
        bert.forward_features(bert.collate(table, range(6))), *map(torch.from_numpy, (head.weight, head.bias))
    )
    losses = F.cross_entropy(logits, torch.from_numpy(labels), reduction="none")
    for row in range(6):
        wanted = torch.autograd.grad(losses[row], list(weights.values()), retain_graph=True)
        for mine, brute in zip(found[row], wanted, strict=True):
            torch.testing.assert_close(mine, brute, atol=1e-5, rtol=1e-3)  # float32, summed in another order
    assert not any("embeddings" in name for name in weights)
    assert not any(name.endswith("bias") for name in weights)
    assert any("query" in name for name in weights)


def test_the_fisher_information_of_a_linear_encoder_is_the_closed_form() -> None:
    """The gradient at weight (f, d) is (V'(p - y))_f x_d; many draws of y go to its expectation."""
    method = Task2Vec(rows=40, strength=0.1)
    sample = replace(draw(method, 3, 40), source=Linear())
    at, _, head = task_head(sample, "x", 40, 0, 0.1)
    v, p = head.weight.astype(np.float64), head(sample.features)
    x = sample.given.astype(np.float32).astype(np.float64)
    expected = np.zeros((3, 6))
    for row in at:
        for y in range(3):
            gradient = np.outer(v.T @ (p[row] - np.eye(3)[y]), x[row])
            expected += p[row, y] * gradient**2 / len(at)
    drawn = np.mean([replace(method, seed=s).embed(sample)["fisher"] for s in range(60)], axis=0)
    np.testing.assert_allclose(drawn, expected.mean(axis=1), rtol=0.15)  # 60 draws of 40 labels


def told(sample: SeenTask, task: TaskType) -> SeenTask:
    """The task as three labels of which a row has one, or as a number that its class's two columns make."""
    assert sample.known is not None
    if task == "single_label":
        return sample
    if task == "multi_label":
        return replace(sample, task=task, known=np.eye(3, dtype=np.int8)[sample.known])
    return replace(sample, task=task, classes=0, known=7 + 3 * np.sin(2 * np.pi * sample.known / 3))


def test_the_fisher_information_of_labels_and_numbers_is_the_closed_form() -> None:
    """The gradient at weight (f, d) is (V'r)_f x_d, r of variance p (1 - p) a label, or 1 / what the head leaves."""
    method = Task2Vec(rows=40, strength=0.1)
    plain = replace(draw(method, 3, 40), source=Linear())
    x = plain.given.astype(np.float32).astype(np.float64)
    for task in ("multi_label", "regression"):
        sample = told(plain, task)
        at, known, head = task_head(sample, "x", 40, 0, 0.1)
        v, p = head.weight.astype(np.float64), head(sample.features[at])
        spread = p * (1 - p) if task == "multi_label" else np.full((40, 1), 1 / np.square(p[:, 0] - known).mean())
        expected = np.einsum("lf,nl,nd->fd", v**2, spread, x[at] ** 2) / len(at)
        drawn = np.mean([replace(method, seed=s).embed(sample)["fisher"] for s in range(60)], axis=0)
        np.testing.assert_allclose(drawn, expected.mean(axis=1), rtol=0.15)  # 60 draws of 40 rows


@pytest.mark.parametrize("task", ["multi_label", "regression"])
@pytest.mark.parametrize("method", [Task2Vec(), GradientSimilarity(), MaskOverlap(), AttributionSimilarity()])
def test_labels_and_numbers_are_tasks_too(method: Any, task: TaskType) -> None:
    nearer = 0
    for seed in range(3):
        a, half, other = (
            told(draw(method, seed, 96, among=among, rule=rule), task) for among, rule in ((0, 0), (1, 0), (0, 1))
        )
        assert between(method, a, a) == pytest.approx(1)
        nearer += between(method, a, half) > between(method, a, other)
    assert nearer == 3
    assert a.known is not None
    renamed = a.known[:, [2, 0, 1]] if task == "multi_label" else 5 - 40 * a.known  # another unit, turned round
    close(between(method, replace(a, known=renamed), half), between(method, a, half), 1e-3)
    flat = replace(a, known=np.zeros_like(a.known))
    with pytest.raises(Unfit, match="rows"):
        method.embed(flat)


def test_the_mean_gradient_of_labels_and_numbers_is_that_of_the_mean_loss() -> None:
    method = GradientSimilarity(rows=25)
    for task in ("multi_label", "regression"):
        sample = told(draw(method, 2, 25), task)
        at, known, head = task_head(sample, "x", 25, 0, 1.0)
        encoder = copy.deepcopy(sample.source)
        logits = encoder.forward_features(encoder.collate(sample.inputs, at)) @ torch.from_numpy(head.weight).T
        logits, truth = logits + torch.from_numpy(head.bias), torch.from_numpy(known).float()
        if task == "multi_label":
            loss = F.binary_cross_entropy_with_logits(logits, truth, reduction="sum") / len(at)
        else:
            loss = F.mse_loss(logits[:, 0], truth) / 2
        wanted = torch.autograd.grad(loss, list(matrices(encoder).values()))
        np.testing.assert_allclose(
            method.embed(sample)["gradient"], torch.cat([g.flatten() for g in wanted]), rtol=1e-3, atol=1e-6
        )


def test_the_fisher_information_is_of_drawn_labels_of_single_rows_in_eval_mode() -> None:
    method = Task2Vec(rows=20)
    sample = draw(method, 1, 20)
    at, _, head = task_head(sample, "x", 20, 0, 0.1)
    sure = head(sample.features[at]).cumsum(axis=1)
    labels = (np.random.default_rng(0).random((20, 1)) > sure).sum(axis=1)
    encoder = copy.deepcopy(sample.source)
    encoder.module.eval()
    total = {name: torch.zeros_like(w, dtype=torch.float64) for name, w in matrices(encoder).items()}
    for row in range(20):
        encoder.module.zero_grad()
        found = encoder.forward_features(encoder.collate(sample.inputs, [row]))
        logits = found @ torch.from_numpy(head.weight).T + torch.from_numpy(head.bias)
        F.cross_entropy(logits, torch.tensor([int(labels[row])])).backward()
        for name, w in matrices(encoder).items():
            total[name] += w.grad.double() ** 2
    wanted = np.concatenate([(t / 20).mean(dim=1).numpy() for t in total.values()])
    careless = Counted(**{f: getattr(sample, f) for f in sample.__dataclass_fields__})
    for one in (sample, careless):
        np.testing.assert_allclose(method.embed(one)["fisher"], wanted, rtol=1e-4)


def test_task2vec_compares_shares_of_the_sum() -> None:
    a, b = np.array([1.0, 3.0, 0.0]), np.array([3.0, 1.0, 0.0])
    one, other = np.array([0.25, 0.75]), np.array([0.75, 0.25])  # a filter that neither touches is left out
    assert Task2Vec()({"fisher": a}, {"fisher": b}) == pytest.approx(one @ other / (one @ one))


def test_the_mean_gradient_is_that_of_the_mean_loss() -> None:
    method = GradientSimilarity(rows=25)
    sample = draw(method, 2, 25)
    at, labels, head = task_head(sample, "x", 25, 0, 1.0)
    encoder = copy.deepcopy(sample.source)
    logits = encoder.forward_features(encoder.collate(sample.inputs, at)) @ torch.from_numpy(head.weight).T
    loss = F.cross_entropy(logits + torch.from_numpy(head.bias), torch.from_numpy(labels))
    wanted = torch.autograd.grad(loss, list(matrices(encoder).values()))
    np.testing.assert_allclose(
        method.embed(sample)["gradient"], torch.cat([g.flatten() for g in wanted]), rtol=1e-3, atol=1e-6
    )


def test_a_sketch_keeps_the_cosine() -> None:
    method = GradientSimilarity(width=400)
    chance = np.random.default_rng(0)
    a, noise = chance.standard_normal((2, 3, 5000))
    b = a + noise
    one, other = ({"gradient": method._sketch(list(v))} for v in (a, b))
    assert len(one["gradient"]) == 400
    assert method(one, other) == pytest.approx(0.5**0.5, abs=4 / 400**0.5)
    left, right = np.repeat([[1.0, 0.0], [0.0, 1.0]], 5000, axis=1)  # at right angles, and all of one sign
    assert method(*({"gradient": method._sketch([v])} for v in (left, right))) == pytest.approx(0, abs=4 / 400**0.5)
    whole = GradientSimilarity(width=15_000)._sketch(list(a))
    np.testing.assert_array_equal(whole, a.ravel())


class Words:
    """Word vectors averaged, then a matrix: what a word gives to an output is known."""

    width, linear_layers = 2, ()
    layers = (("0.weight",), ("1.weight",))

    def __init__(self) -> None:
        chance = np.random.default_rng(0)
        self.module = torch.nn.Sequential(torch.nn.Embedding(5, 3), torch.nn.Linear(3, 2, bias=False))
        for part in self.module:
            part.weight.data = torch.from_numpy(chance.standard_normal(tuple(part.weight.shape))).float()

    def collate(self, inputs: pa.Table, rows: Sequence[int]) -> Any:
        return torch.tensor([inputs["words"][int(r)].as_py() for r in rows])

    def costs(self, inputs: pa.Table) -> Sequence[int]:
        return [len(words) for words in inputs["words"].to_pylist()]

    def forward_features(self, batch: Any) -> torch.Tensor:
        found: torch.Tensor = self.module(batch).mean(dim=1)
        return found


def test_a_word_is_owed_what_it_adds_to_the_output() -> None:
    encoder, words = Words(), [0, 3, 3, 4]
    head = Head(np.array([[1, 0], [0, 1], [1, 1]], dtype=np.float32), np.zeros(3, dtype=np.float32))
    owed = places(encoder, head, pa.table({"words": [words]}), 0)
    vectors = encoder.module[0].weight[words].detach().numpy() @ encoder.module[1].weight.detach().numpy().T  # type: ignore[index, union-attr]  # torch
    logits = vectors @ head.weight.T / 4
    best = logits.sum(axis=0).argmax()
    np.testing.assert_allclose(owed, logits[:, best] - logits.mean(axis=1), rtol=1e-5)
    assert owed.sum() == pytest.approx((logits.sum(axis=0) - logits.sum(axis=0).mean())[best], rel=1e-5)


def test_attributions_of_a_transformer_are_one_a_token(bert: Any) -> None:
    table = tiny_models.texts(4)
    head = Head(np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32), np.zeros(3, dtype=np.float32))
    for row in range(4):
        assert len(places(bert, head, table, row)) == bert.costs(table)[row]


@pytest.mark.parametrize(
    ("model", "settings"),
    [("longformer", {"attention_window": [8, 8]}), ("big_bird", {"block_size": 4, "num_random_blocks": 1})],
)
def test_what_fills_up_a_window_is_no_place(tmp_path: Path, model: str, settings: dict[str, Any]) -> None:
    """Nothing is owed to it by any task, so that all would be alike for it: most of a short text in a window of 512."""
    from transformers import AutoModel, AutoTokenizer

    folder, table = tiny_models.save_model(tmp_path / "m", model, **settings), tiny_models.texts(4)
    head = Head(np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32), np.zeros(3, dtype=np.float32))
    (source,), _ = sources.scan(folder)
    with sources.opened(source) as opened:
        found = [places(opened.encoder(), head, table, row) for row in range(4)]
    for text, mine in zip(table["text"].to_pylist(), found, strict=True):
        plain = AutoModel.from_pretrained(folder).eval()
        called = AutoTokenizer.from_pretrained(folder)(text, truncation=True, max_length=32, return_tensors="pt")
        vectors = plain.get_input_embeddings()(called.pop("input_ids")).detach().requires_grad_(True)
        if model == "longformer":  # which tells places of tokens by their padding, and vectors have none
            called["position_ids"] = torch.arange(1, vectors.shape[1] + 1)[None]
        said = torch.from_numpy(head.weight) @ plain(inputs_embeds=vectors, **called).last_hidden_state[0].mean(dim=0)
        (said.max() - said.mean()).backward()
        np.testing.assert_allclose(mine, (vectors.grad * vectors)[0].sum(dim=-1).detach(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "settings", "flat"),
    [("convnextv2", {"hidden_sizes": [8, 12], "depths": [1, 1], "num_stages": 2}, "grn.bias"), ("vit", {}, "cls_token"),
     ("convbert", {"conv_kernel_size": 3}, "key_conv_attn_layer.bias")],
)  # fmt: skip
def test_biases_and_tokens_are_no_matrices_whatever_their_shape(
    model: str, settings: dict[str, Any], flat: str
) -> None:
    from transformers import AutoModel

    module = AutoModel.from_config(tiny_models.config_for(model, **settings))
    named = dict(module.named_parameters())
    encoder = cast(Encoder, SimpleNamespace(module=module, layers=[list(named)]))  # what is read of it
    found = matrices(encoder)
    assert any(name.endswith(flat) and p.ndim > 1 for name, p in named.items())
    assert not any(name.endswith(("bias", "_token")) for name in found)
    layers = {f"{n}.weight" for n, m in module.named_modules() if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d))}
    assert layers <= set(found)


def test_a_shown_row_counts_once_however_large_its_attributions() -> None:
    method = AttributionSimilarity(probe=5)
    sample = draw(method, 0)
    sample = replace(sample, shown=sample.shown[:5])
    found = method.embed(sample)["attribution"].reshape(5, -1)
    np.testing.assert_allclose(found.sum(axis=1), 0, atol=1e-12)
    assert (np.abs(found).sum(axis=1) <= 2).all()


def test_a_mask_holds_the_same_share_of_each_matrix() -> None:
    method = MaskOverlap(share=0.1, steps=3)
    sample = draw(method, 0)
    found = method.embed(sample)
    assert found["sizes"].tolist() == [48, 64]
    assert ((found["kept"] < 48).sum(), (found["kept"] >= 48).sum()) == (5, 6)
    assert len(np.unique(found["kept"])) == 11


def test_what_does_not_move_is_in_no_mask(tmp_path: Path) -> None:
    """Longformer's matrices of global attention have no gradients here, and would be alike for all tasks."""
    assert not len(MaskOverlap(share=0.1, steps=1, learning_rate=1e-30).embed(draw(MaskOverlap(), 0))["kept"])
    (source,), _ = sources.scan(tiny_models.save_model(tmp_path / "m", "longformer", attention_window=[4, 4]))
    inputs = tiny_models.texts(12)
    with sources.opened(source) as opened:
        encoder, features = opened.encoder(), opened.features(inputs)
    ends = np.cumsum([0, *(w.numel() for w in matrices(encoder).values())])
    task = Texts(encoder=encoder, inputs=inputs, features=features, labels=np.arange(12) % 2)
    kept = MaskOverlap(steps=3).embed(cast(TaskSample, task))["kept"]  # it has what the method reads
    counts = dict(zip(matrices(encoder), np.diff(np.searchsorted(kept, ends)), strict=True))
    assert {name for name, count in counts.items() if not count} == {n for n in counts if "_global." in n} != set()


def test_classes_are_numbered_as_they_come() -> None:
    assert first_seen(np.array([5, 5, 1, 9, 1])).tolist() == [0, 0, 1, 2, 1]


@pytest.mark.parametrize("method", [Task2Vec(), GradientSimilarity(), MaskOverlap(), AttributionSimilarity()])
def test_a_single_class_is_unfit(method: Any) -> None:
    sample = replace(draw(method, 0), known=np.ones(30, dtype=np.int64))
    with pytest.raises(Unfit, match="30 rows of one class"):
        method.embed(sample)
    assert isinstance(method.needs, Needs)
    assert "gradients" in method.needs.gives


@pytest.mark.parametrize(
    ("kind", "settings"),
    [(MaskOverlap, {"share": 1.0}), (MaskOverlap, {"steps": 0}), (Task2Vec, {"rows": 0}), (Task2Vec, {"strength": 0.0}),
     (GradientSimilarity, {"width": 0}), (AttributionSimilarity, {"probe": 0})],
)  # fmt: skip
def test_settings_that_mean_nothing_are_unfit(kind: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(Unfit):
        kind(**settings)
