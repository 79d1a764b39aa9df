"""The bank keeps what it was given, for two processes at once, and says plainly what it cannot open."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from headstart.core import Measured, Problem, Receipt, Refused, Source, Unfit, Unreadable
from headstart.inventory import Inventory, files
from headstart.inventory.database import BANK_VERSION
from headstart.inventory.location import mount_type, prepared_file, server_url
from headstart.inventory.records import Cost, ProxyScore, Run, Trial, fingerprint_of_test
from headstart.numerics.hashing import row_key

from .shelves import a_source, a_target

HOSTILE = "'; DROP TABLE sources; -- \x00 \udcff <script>alert(1)</script> \x1b[31m ‮ \n %s {0} 'é"


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[Inventory]:
    with Inventory(tmp_path / "bank.db") as opened:
        yield opened


def test_sources_come_back_as_they_were(bank: Inventory) -> None:
    receipt = Receipt(step="adapt", method="lp_ft", scores={"macro_f1": Measured(0.9, 0.8, 1.0, 40)}, seeds=(0, 1))
    one = a_source(
        "minilm", base="b" * 64, lineage=("x", "y"), licence="mit", receipt=receipt, trained_on=frozenset({"r1", "r2"}),
        facts={"width": 384, "labels": ["a", "b"], "nested": {"k": None}},
    )  # fmt: skip
    other = a_source("vit", modality="image", trained_on=frozenset())
    bank.add_source(one)
    bank.add_source(other)
    assert bank.sources() == [one, other]
    assert bank.sources("image") == [other]
    assert bank.show("minilm") == bank.show(one.id) == bank.show(one.identity[:6]) == one


def test_numpy_facts_are_stored_as_plain_values(bank: Inventory) -> None:
    bank.add_source(a_source("m", facts={"mean": np.float32(0.5), "shape": np.array([1, 2])}))
    assert bank.show("m").facts == {"mean": 0.5, "shape": [1, 2]}


def test_a_hostile_string_in_every_field_stays_text(bank: Inventory) -> None:
    source = a_source(
        HOSTILE, kind=HOSTILE, where="/nowhere/" + HOSTILE, origin=HOSTILE, licence=HOSTILE,
        base=HOSTILE, lineage=(HOSTILE,), facts={HOSTILE: HOSTILE}, trained_on=frozenset({HOSTILE}),
    )  # fmt: skip
    bank.add_source(source)
    target = a_target(HOSTILE, train=["a", "b"], test=["c"])
    bank.record_target(target, np.zeros(3))
    trial = Trial(name=HOSTILE, kind=HOSTILE, method=HOSTILE, status="failed", error={"what": HOSTILE})
    score = ProxyScore(source=source.identity, estimator="logme", value=1.0, dropped=HOSTILE)
    run = Run(id=HOSTILE, target=target.fingerprint, settings={HOSTILE: HOSTILE}, summary={"out": HOSTILE})
    assert bank.record_run(run, trials=[trial], scores=[score])
    assert bank.count_opening(HOSTILE, HOSTILE) == 1
    assert bank.sources() == [source]
    assert bank.runs()[0]["settings"] == {HOSTILE: HOSTILE}


def test_adding_again_changes_nothing_and_a_new_fact_is_a_new_row(bank: Inventory, tmp_path: Path) -> None:
    source = a_source("m")
    bank.add_source(source)
    bank.add_source(source)
    moved = a_source("m", where="/elsewhere/m")
    bank.add_source(moved)
    assert bank.sources() == [moved]
    with sqlite3.connect(tmp_path / "bank.db") as raw:
        assert raw.execute("SELECT count(*) FROM sources").fetchone() == (2,)


def test_what_a_folder_holds_now_takes_the_place_of_what_it_held(bank: Inventory) -> None:
    old, new = a_source("old", where="/models/m"), a_source("new", where="/models/m")
    bank.add_source(old)
    bank.add_source(new)
    assert bank.sources() == [new]


def test_removing_keeps_the_record_and_adding_puts_it_back(bank: Inventory) -> None:
    source = a_source("m", trained_on=frozenset({"r"}))
    bank.add_source(source)
    assert bank.remove("m") == source
    assert bank.sources() == []
    heir = a_source("heir", base=source.weights, trained_on=frozenset())
    assert bank.contamination([heir], ["r", "s"]) == {heir.id: 1}
    bank.add_source(source)
    assert bank.sources() == [source]


def test_an_unknown_or_ambiguous_name_is_answered_with_the_right_ones(bank: Inventory) -> None:
    bank.add_source(a_source("minilm", identity="abc1" + "0" * 60))
    bank.add_source(a_source("mpnet", identity="abc2" + "0" * 60))
    with pytest.raises(Unfit, match="did you mean minilm"):
        bank.show("minilmm")
    with pytest.raises(Unfit, match="means 2 sources"):
        bank.remove("abc")
    with pytest.raises(Unfit, match="headstart inventory list"):
        bank.show("")


def test_add_lists_what_it_could_not_read(bank: Inventory, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = a_source("good"), ("bad", Unreadable("pickle weights", where="bad", fix="convert them"))
    scan_with(monkeypatch, [good], [bad])
    assert bank.add("anywhere") == ([good], [bad])
    assert bank.sources() == [good]


def test_verify_names_the_files_that_are_missing_or_changed(
    bank: Inventory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {name: tmp_path / name for name in ("whole", "short", "altered", "reworded", "gone")}
    for folder in folders.values():
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"weights")
        (folder / "config.json").write_text("{}")
        (folder / "README.md").write_text("words")
    held = {name: a_source(name, where=str(folder)) for name, folder in folders.items()}
    for source in held.values():
        bank.add_source(source)
    assert bank.verify() == []
    (folders["short"] / "config.json").unlink()
    (folders["altered"] / "model.safetensors").write_bytes(b"weightz")
    (folders["reworded"] / "config.json").write_text("{ }")
    (folders["whole"] / "README.md").write_text("other words")
    shutil.rmtree(folders["gone"])
    scan_with(monkeypatch, [held["whole"], held["reworded"], a_source("new", where=str(folders["altered"]))], [])
    found = {one.name: (one.what, one.files) for one in bank.verify()}
    assert found == {
        "short": ("missing", ("config.json",)),
        "altered": ("changed", ("model.safetensors",)),
        "gone": ("missing", (str(folders["gone"]),)),
    }
    assert json.dumps([one.as_dict() for one in bank.verify()])


def test_files_that_did_not_change_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, (1000, 1000))
    first = files.listing(str(tmp_path))
    (tmp_path / "config.json").write_text("other")
    with monkeypatch.context() as counted:
        read = []
        counted.setattr(files, "_digest", lambda path, cache: read.append(path.name) or "digest")
        assert files.digests(files.listing(str(tmp_path), first))["config.json"] == "digest"
    assert read == ["config.json"]
    (tmp_path / "model.safetensors").write_text("model.safetensorz")
    os.utime(tmp_path / "model.safetensors", (1000, 1000))  # the same size and date: only reading it tells
    assert files.digests(files.listing(str(tmp_path))) != files.digests(first)


def test_a_run_is_kept_once_with_all_its_parts(bank: Inventory, tmp_path: Path) -> None:
    target = a_target(train=["a", "b", "c", "d"], test=["e", "f"])
    bank.record_target(target, np.arange(3.0))
    bank.record_target(target, np.arange(3.0))
    run = Run(id="r1", target=target.fingerprint, verdict="helps", summary={"score": {"value": 0.9}}, seconds=12.5)
    trials = [
        Trial(name="t", kind="adaptation.routes", method="lora", source="s", valid=Measured(0.7, 0.6, 0.8, 4),
              curve=((0, 0, 1, 0.5, None), (0, 0, 1, 0.4, float("nan")))),
        Trial(name="u", kind="adaptation.routes", method="lora", status="failed", error={"what": "no memory"}),
    ]  # fmt: skip
    scores = [ProxyScore(source="s", estimator="logme", value=float("nan"), rows=4)]
    costs = [Cost(stage="rank", seconds=1.0, forecast_seconds=2.0, bytes=10**12)]
    assert bank.record_run(run, trials=trials, scores=scores, costs=costs)
    assert not bank.record_run(run, trials=trials, scores=scores, costs=costs)
    assert [r["verdict"] for r in bank.runs(target.fingerprint)] == ["helps"]
    assert bank.runs("another") == []
    with sqlite3.connect(tmp_path / "bank.db") as raw:
        count = {t: raw.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in ("trials", "curves", "scores")}
        roles = dict(raw.execute("SELECT role, hashes FROM target_rows").fetchall())
    assert count == {"trials": 2, "curves": 1, "scores": 1}
    assert json.loads(roles["test"]) == sorted(target.seal.content)
    assert json.loads(roles["train"]) == sorted(target.labelled.content)


def test_a_run_that_cannot_be_stored_leaves_nothing(bank: Inventory) -> None:
    twice = [ProxyScore(source="s", estimator="logme", value=1.0)] * 2  # breaks the key, after the run was written
    with pytest.raises(Problem):
        bank.record_run(Run(id="r1", target="t"), scores=twice)
    assert bank.runs() == []


def test_openings_are_counted_per_test_and_once_a_run(bank: Inventory) -> None:
    first = a_target("one", train=["a", "b"], test=["x", "y"])
    test = fingerprint_of_test(first)
    assert test == fingerprint_of_test(a_target("two", train=["c", "d"], test=["y", "x"]))
    assert bank.opened(test) == 0
    assert [bank.count_opening(test, run) for run in ("r1", "r1", "r2")] == [1, 1, 2]
    assert bank.opened("another test") == 0


def test_the_snapshot_is_json_and_says_what_solve_needs(bank: Inventory) -> None:
    texts = [f"text {i}" for i in range(40)]
    target = a_target(train=texts[:20], test=texts[20:])
    clean = a_source("clean", trained_on=frozenset())
    seen = a_source("seen", trained_on=frozenset(row_key(t) for t in texts[20:30]))
    bank.add_source(clean)
    bank.add_source(seen)
    bank.add_source(a_source("vit", modality="image"))
    found = bank.snapshot(target)
    assert json.loads(json.dumps(found)) == found
    assert [s["name"] for s in found["sources"]] == ["clean", "seen"]
    assert found["order"] == [clean.id, seen.id]
    assert found["marks"]["of"][seen.id]["can_win"] is False
    assert (found["openings"], found["version"]) == (0, BANK_VERSION)


# -- opening ---------------------------------------------------------------------------------------------------------


def test_the_default_is_under_headstart_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path / "ünï code"))
    with Inventory() as bank:
        assert bank.file == tmp_path / "ünï code" / "bank.db"
        bank.add_source(a_source("m"))
    with Inventory(tmp_path / "ünï code") as again:
        assert len(again.sources()) == 1


def test_an_older_bank_is_upgraded_and_keeps_its_rows(tmp_path: Path) -> None:
    with Inventory(tmp_path / "a.db") as bank:
        bank.add_source(a_source("m"))
    with sqlite3.connect(
        tmp_path / "a.db"
    ) as raw:  # back to version 1, which had no index of the cache, and no records of others
        raw.execute("DROP TABLE cached")
        raw.execute("DROP TABLE records")
        raw.execute("DROP TABLE readings")
        raw.execute("UPDATE headstart_version SET version_num = '0001'")
    with Inventory(tmp_path / "a.db") as bank:
        assert [s.name for s in bank.sources()] == ["m"]
        bank.feature_cache(tmp_path / "cache").close()
    with sqlite3.connect(tmp_path / "a.db") as raw:
        assert raw.execute("SELECT version_num FROM headstart_version").fetchone() == (f"{BANK_VERSION:04d}",)


def test_the_migrations_make_the_tables_that_the_code_uses(bank: Inventory) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from headstart.inventory.tables import metadata

    with bank._database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": "headstart_version"})
        assert compare_metadata(context, metadata) == []


def test_a_newer_bank_is_refused_with_the_upgrade_command(tmp_path: Path) -> None:
    Inventory(tmp_path / "a.db").close()
    with sqlite3.connect(tmp_path / "a.db") as raw:
        raw.execute("UPDATE headstart_version SET version_num = '0099'")
    with pytest.raises(Refused, match="version 99") as refused:
        Inventory(tmp_path / "a.db")
    assert refused.value.fix == "pip install --upgrade headstart"


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to look like one" * 100, b"SQLite format 3\0" * 90]
)
def test_a_damaged_file_is_told_with_what_where_and_fix(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.db").write_bytes(content)
    with pytest.raises(Unreadable) as problem:
        Inventory(tmp_path / "a.db")
    assert "damaged" in problem.value.what
    assert str(tmp_path / "a.db") in problem.value.where
    assert (tmp_path / "a.db").read_bytes() == content


def test_damage_inside_a_bank_is_told_too(tmp_path: Path) -> None:
    with Inventory(tmp_path / "a.db") as bank:
        for n in range(60):
            bank.add_source(a_source(f"m{n}"))
    content = bytearray((tmp_path / "a.db").read_bytes())
    content[8192:] = b"\xff" * (len(content) - 8192)
    (tmp_path / "a.db").write_bytes(content)
    with pytest.raises(Unreadable, match="damaged"):
        Inventory(tmp_path / "a.db").sources()


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "a.db") as raw:
        raw.execute("CREATE TABLE songs (name TEXT)")
    before = (tmp_path / "a.db").read_bytes()
    with pytest.raises(Unreadable, match="`songs`"):
        Inventory(tmp_path / "a.db")
    with sqlite3.connect(tmp_path / "a.db") as raw:
        assert raw.execute("SELECT name FROM sqlite_master").fetchall() == [("songs",)]
    assert before[:16] == b"SQLite format 3\0"


def test_a_folder_that_cannot_be_written_is_told() -> None:
    with pytest.raises(Unreadable, match="could not be made"):
        Inventory("/proc/no-such-folder/bank.db")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        with as_nobody(), pytest.raises(Unreadable, match="read-only"):
            Inventory(Path(folder) / "bank.db")


def test_a_network_file_system_is_refused_with_postgres_as_the_way_out(tmp_path: Path) -> None:
    mounts = f"ext4 / ext4 rw 0 0\nhost:/team {tmp_path} nfs4 rw 0 0\n"
    with pytest.raises(Refused, match="postgresql://") as refused:
        prepared_file(tmp_path / "bank.db", mounts=mounts)
    assert "nfs4" in refused.value.what
    assert mount_type("/a b/c", "x /a\\040b fuse.sshfs rw 0 0") == "fuse.sshfs"
    assert mount_type("/ab/c", "x /a nfs rw 0 0") == ""


def test_another_kind_of_server_is_refused_by_name() -> None:
    with pytest.raises(Unfit, match="mysql"):
        Inventory("mysql://host/bank")
    assert server_url("postgres://u@h/b") == server_url("postgresql://u@h/b") == "postgresql+psycopg://u@h/b"


def test_a_server_that_does_not_answer_is_told_without_its_password() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(Unreadable) as problem:
        Inventory("postgresql://me:secret@127.0.0.1:1/bank")
    assert "secret" not in str(problem.value)


def test_two_processes_write_one_bank_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from headstart.inventory import Inventory; from headstart.core import Source\n"
        "bank = Inventory(sys.argv[1]); me = sys.argv[2]\n"
        "for n in range(15):\n"
        "    bank.add_source(Source(name=f'{me}{n}', kind='checkpoint', where=f'/x/{me}{n}', weights=f'{me}{n}',\n"
        "                           identity=f'{me}{n}', modality='text', gives=()))\n"
        "    bank.count_opening('test', f'{me}{n}'); bank.sources()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "bank.db"), me], env=environment, stderr=-1)
        for me in "ab"
    ]
    ends = [(process.communicate()[1], process.returncode) for process in started]
    assert [code for _, code in ends] == [0, 0], ends
    with Inventory(tmp_path / "bank.db") as bank:
        assert len(bank.sources()) == bank.opened("test") == 30


def test_the_import_is_light() -> None:
    code = "import sys, headstart.inventory; print({'sqlalchemy', 'alembic', 'numpy', 'pyarrow'} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert out.stdout.strip() == "set()"


@pytest.mark.skipif(
    not os.environ.get("HEADSTART_TEST_POSTGRES"), reason="HEADSTART_TEST_POSTGRES names no server to write to"
)
def test_a_server_keeps_the_same_things() -> None:
    with Inventory(os.environ["HEADSTART_TEST_POSTGRES"]) as bank:
        name = f"{HOSTILE}{os.getpid()}"
        source = a_source(name, facts={HOSTILE: HOSTILE}, trained_on=frozenset({"r"}))
        bank.add_source(source)
        assert bank.show(source.id) == source
        assert bank.contamination([source], ["r", "r", "s"]) == {source.id: 2}
        target = a_target(name, train=["a", "b"], test=[repr(name)])
        bank.record_target(target, np.zeros(3))
        trial = Trial(name="t", kind="k", method="m", source=source.identity, valid=Measured(0.5, 0.4, 0.6, 9))
        assert bank.record_run(Run(id=name, target=target.fingerprint), trials=[trial])
        assert not bank.record_run(Run(id=name, target=target.fingerprint), trials=[trial])
        assert bank.count_opening(fingerprint_of_test(target), name) == 1
        with tempfile.TemporaryDirectory() as folder:
            cache = bank.feature_cache(folder, 10**6)
            cache.put("ab" * 32, np.ones((2, 2), dtype=np.float32))
            cache.close()
        assert bank.remove(source.id) == source
    with Inventory(os.environ["HEADSTART_TEST_POSTGRES"]) as again:
        assert len(again.runs(target.fingerprint)) == 1


# -- helpers ---------------------------------------------------------------------------------------------------------


def scan_with(monkeypatch: pytest.MonkeyPatch, found: list[Source], failed: list[tuple[str, Problem]]) -> None:
    """Puts a reader of sources in place that finds these."""
    module = types.ModuleType("headstart.io.sources")
    module.scan = lambda path, cache=None: (found, failed)  # type: ignore[attr-defined]  # a module made here
    monkeypatch.setitem(sys.modules, "headstart.io.sources", module)


class as_nobody:
    """Without root's right to write everywhere, for as long as a `with` lasts."""

    def __enter__(self) -> None:
        self._was = os.geteuid()
        if self._was == 0:
            os.seteuid(65534)

    def __exit__(self, *_: object) -> None:
        if self._was == 0:
            os.seteuid(0)
