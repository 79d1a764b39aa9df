"""What past runs let expect of a source by a route: planted gains, too little past, and how sure a place is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headstart.core import Measured, Receipt, Target
from headstart.inventory import Inventory
from headstart.inventory.records import ProxyScore, Run, Trial
from headstart.numerics.pools import Pool
from headstart.ranking.certainty import Certainty, _rows_to_tell, words
from headstart.ranking.expect import Expected, expect, forecast_of, predicted
from headstart.ranking.racing import Ranked
from inventory.shelves import a_source, a_target

NAMES = ("a", "b", "c", "d")


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[Inventory]:
    with Inventory(tmp_path / "bank.db") as opened:
        yield opened


def a_new_target(name: str = "new") -> Target:
    return a_target(name, train=[f"{name} {n}" for n in range(20)], test=[f"{name} test {n}" for n in range(4)])


def remember(bank: Inventory, name: str, probes: dict[str, float], gain: float, proxy: float = 1.0) -> None:
    """A past target: its probes, a proxy of each source, and `lora` that goes half of the way to the best, and more."""
    target = a_new_target(name)
    bank.record_target(target)
    best = max(probes.values())

    def trial(source: str, method: str, value: float, status: str = "done") -> Trial:
        return Trial(
            name=source, kind="adaptation.routes", method=method, source=a_source(source).identity,
            valid=Measured(value, value, value, 20), status=status,  # type: ignore[arg-type]  # one of three words
        )  # fmt: skip

    trials = [trial(s, "linear_probe", p) for s, p in probes.items()]
    trials += [trial(s, "lora", p + (best - p) / 2 + gain) for s, p in probes.items() if s != "d"]
    trials.append(trial("d", "lora", 0.0, "stopped"))
    scores = [
        ProxyScore(source=a_source(s).identity, estimator="logme", value=proxy * p, rows=20) for s, p in probes.items()
    ]
    bank.record_run(Run(id=name, target=target.fingerprint), trials=trials, scores=scores)


def ranked(**probes: float) -> list[Ranked]:
    return [Ranked(a_source(s), Measured(p, p - 0.05, p + 0.05, 20), {"logme": p}) for s, p in probes.items()]


def test_gains_of_the_past_are_expected_again(bank: Inventory) -> None:
    chance = np.random.default_rng(0)
    for n in range(12):
        probes = dict(zip(NAMES, chance.uniform(0.4, 0.6, 4), strict=True))
        remember(bank, f"t{n}", probes, 0.1 + 0.01 * chance.standard_normal())
    told = expect(ranked(a=0.5, b=0.6, d=0.4), a_new_target(), bank)
    by_route = {s: {e.route: e for e in told[a_source(s).identity]} for s in "abd"}
    probe = by_route["a"]["linear_probe"]
    assert (probe.value, probe.targets) == (0.5, 0)
    assert probe.low == pytest.approx(0.5 - 0.05 * 1.6449 / 1.96, abs=1e-4)
    for name, wanted in (("a", 0.65), ("b", 0.70), ("d", 0.6)):
        lora = by_route[name]["lora"]
        assert lora.targets == 12
        assert lora.value == pytest.approx(wanted, abs=0.02)
        assert lora.low is not None
        assert lora.high is not None
        assert lora.low < wanted < lora.high
        assert lora.high - lora.low < 0.2
    assert by_route["a"]["full_finetune"].value is None
    assert "past target" in by_route["a"]["full_finetune"].basis
    lora = by_route["b"]["lora"]
    assert (lora.runs, lora.basis) == (36, "from 36 past runs on 12 targets")
    assert json.loads(json.dumps([e.as_dict() for e in told[a_source("a").identity]]))


def test_the_target_itself_is_no_past_target(bank: Inventory) -> None:
    for n in range(3):
        remember(bank, f"t{n}", {"a": 0.5, "b": 0.6}, 0.1)
    for name, known in (("new", 3), ("t1", 2)):
        (lora,) = (
            e for e in expect(ranked(a=0.5), a_new_target(name), bank)[a_source("a").identity] if e.route == "lora"
        )
        assert lora.targets == known
        assert (lora.value is None) == (known < 3)
    assert "taken for normal" in str(
        [e.basis for e in expect(ranked(a=0.5), a_new_target(), bank)[a_source("a").identity]]
    )


def test_one_score_is_the_probe_until_history_is_long_enough(bank: Inventory) -> None:
    """With eight past targets the probe stays; from nine on a route counts that is expected to do better."""
    for n in range(9):
        told = expect(ranked(a=0.5, b=0.6), a_new_target(), bank)[a_source("b").identity]
        one = predicted(told, 1)
        assert one is not None
        assert (one.route, one.basis, one.value) == ("linear_probe", "cross-validated here", 0.6)
        remember(bank, f"t{n}", {"a": 0.5, "b": 0.6, "d": 0.55}, 0.1 + 0.01 * (n % 3))
    told = expect(ranked(a=0.5, b=0.6), a_new_target(), bank)[a_source("b").identity]
    one = predicted(told, 1)
    assert one is not None
    assert (one.route, one.targets, one.runs, one.basis) == ("lora", 9, 18, "from 18 past runs on 9 targets")
    assert one.value == pytest.approx(0.71, abs=0.02)
    lower = predicted(told, -1)
    assert lower is not None
    assert lower.route == "linear_probe", "of an error the least is the best"


def test_without_a_bank_the_probe_is_all_there_is() -> None:
    (one,) = expect(ranked(a=0.5), a_new_target(), None)[a_source("a").identity]
    assert predicted([one], 1) is one
    assert predicted([Expected("lora", "nothing is known")], 1) is None


def test_the_best_of_two_routes_holds_what_comes_of_it() -> None:
    """On fresh targets, the interval of the best of two noisy forecasts holds nearly nine of ten."""
    chance, inside, asked = np.random.default_rng(0), 0, 0
    for _ in range(60):
        made = [_a_pool(chance, n) for n in range(13)]
        new, came = made[-1]
        told = []
        for route in (0, 1):
            past = [replace(pool, values=gained[route]) for pool, gained in made[:-1]]
            told.append(forecast_of(past, new)[:3])
        best = np.argmax([values for values, _, _ in told], axis=0)
        for source, route in enumerate(best):
            _, lows, highs = told[route]
            inside += lows[source] <= came[route][source] <= highs[source]
            asked += 1
    assert inside / asked >= 0.86, f"{inside} of {asked}"


def _a_pool(
    chance: np.random.Generator, number: int
) -> tuple[Pool, list[np.ndarray[tuple[int], np.dtype[np.float64]]]]:
    """What was known of five sources on one target, and what came of each by two routes that differ by chance alone."""
    base = chance.uniform(0.4, 0.7, 5)
    hard = 0.03 * chance.standard_normal()
    came = [base + 0.1 + hard + 0.03 * chance.standard_normal(5) for _ in range(2)]
    return Pool(target=str(number), sources=("a", "b", "c", "d", "e"), base=base), came


def test_pools_hold_what_was_done(bank: Inventory) -> None:
    remember(bank, "t", {"a": 0.5, "d": 0.7}, 0.1, proxy=2.0)
    (pool,) = bank.pools(a_new_target(), "lora")
    at = [pool.sources.index(a_source(s).identity) for s in "ad"]
    assert pool.base is not None
    assert pool.values is not None
    assert pool.base[at].tolist() == [0.5, 0.7]
    assert pool.values[at][0] == pytest.approx(0.7)
    assert np.isnan(pool.values[at][1]), "a trial that was stopped is no figure"
    assert pool.proxies["logme"][at].tolist() == [1.0, 1.4]
    assert bank.pools(a_new_target(), "full_finetune") == []


def test_imported_pools_hold_proxies(bank: Inventory, tmp_path: Path) -> None:
    rows = [
        ("t", "s", 0.5, {"proxies": {"logme": 1.0}, "lr": 0.1}),
        ("t", "s", 0.7, {"proxies": {"logme": 3.0}, "lr": 0.1}),
        ("t", "u", 0.9, {"lr": 0.1}),
        ("t", "u", 0.1, {"lr": 9}),
        ("t", "t", 0.9, {"lr": 0.1}),
    ]
    lines = [
        json.dumps({"target": t, "source": s, "method": "ft", "metric": "err", "value": v, "extra": e})
        for t, s, v, e in rows
    ]
    (tmp_path / "runs.jsonl").write_text("\n".join(lines))
    bank.import_records(tmp_path / "runs.jsonl")
    (pool,) = bank.imported_pools("runs", "ft", "err", {"lr": 0.1})
    assert pool.base is None
    assert pool.values is not None
    assert dict(zip(pool.sources, pool.values.round(9), strict=True)) == {"s": 0.6, "u": 0.9}
    assert pool.proxies["logme"][pool.sources.index("s")] == 2.0
    assert np.isnan(pool.proxies["logme"][pool.sources.index("u")])


def test_rows_that_would_tell() -> None:
    """The lower end lies twice as far off as the gap: four times the rows bring it to 0."""
    assert _rows_to_tell(Measured(0.1, -0.1, 0.3, 100)) == 400
    assert _rows_to_tell(Measured(-0.1, -0.5, 0.2, 100)) == pytest.approx(900, abs=1)
    assert _rows_to_tell(Measured(0.1, 0.05, 0.3, 100)) is None
    assert _rows_to_tell(Measured(0.0, -0.1, 0.1, 100)) is None


def test_first_is_counted_over_all_repeats() -> None:
    """Equals share the draws; behind in one repeat and ahead by more in the other is ahead."""
    from headstart.core import Folds
    from headstart.execution.parts import firsts_out_of_fold

    target = a_new_target()
    assert target.labelled.labels is not None
    target = replace(target, folds=Folds(kind="cv", k=2, of=target.folds.of * 2))
    right = np.eye(2)[target.labelled.labels]

    def table(*correct: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        order = np.arange(20)
        return np.stack([np.where((order < many)[:, None], right, 1 - right) for many in correct])

    same = firsts_out_of_fold(target, [table(12, 12), table(12, 12), table(1, 1)])
    assert same.tolist() == [0.5, 0.5, 0.0]
    assert firsts_out_of_fold(target, [table(11, 13), table(12, 10)])[0] > 0.7
    assert firsts_out_of_fold(target, [table(11, 11), table(12, 10)])[0] < 0.7


def test_a_score_is_put_in_words() -> None:
    target = a_new_target()

    def told(certainty: Certainty, score: Measured | None = None, dropped: str | None = None) -> tuple[str, str, str]:
        pace = 0.1  # not seconds / rows, of which loading and the probe are a part
        facts = {
            "rows": 20,
            "dropped": dropped,
            "stopped": None,
            "error": None,
            "certainty": certainty.as_dict(),
            "pace": pace,
        }
        scores = {} if score is None else {"score": score}
        receipt = Receipt(step="rank", method="nmc", scores=scores, seconds=2.0, facts=facts)
        return words(a_source("a").after(receipt), target)

    score = Measured(0.7, 0.6, 0.8, 20)
    saw, sure, better = told(Certainty(0.6, "b", Measured(0.1, -0.1, 0.3, 20), 80), score)
    assert saw.startswith("it saw 20 labelled rows")
    assert "first in 60% of draws" in sure
    assert "0.100 ahead of `b` (-0.100 to 0.300)" in sure
    behind = told(Certainty(0.1, "b", Measured(-0.1, -0.3, 0.05, 20), 80), score)[1]
    assert "0.100 behind `b` (-0.050 to 0.300)" in behind
    assert "about 80 labelled rows would, read in 8.0 s" in better
    hardly = told(Certainty(0.5, "b", Measured(0.00021, -0.041, 0.042, 300), 3_539_964), score)[2]
    assert "about 3,600,000 labelled rows would, read in 98 hours" in hardly, "digits that nobody knows"
    assert "tell the two apart" in told(Certainty(1.0, "b", Measured(0.1, 0.05, 0.3, 20)), score)[2]
    assert "equal so far" in told(Certainty(0.5, "b", Measured(0.0, -0.1, 0.1, 20)), score)[2]
    assert "add sources" in told(Certainty(1.0), score)[2]
    assert told(Certainty(0.0), dropped="far behind")[1] == "far behind"
