"""The journal after crashes, damage, and a newer version."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headstart.core import Refused, Unreadable
from headstart.execution.journal import Journal


def written(path: Path) -> bytes:
    journal = Journal(path)
    journal.write("header", version=1, inputs={})
    journal.write("decision", name="näme", value={10: 0.1 + 0.2, 9: [None, True]})
    journal.write("note", name="n", facts={"text": "line\nbreak \ud800"})
    journal.close()
    return path.read_bytes()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written(tmp_path / "j")
    journal = Journal(tmp_path / "j")
    assert journal.decisions["näme"]["value"] == {"10": 0.1 + 0.2, "9": [None, True]}
    assert journal.notes["n"] == [{"text": "line\nbreak \ud800"}]


def test_a_line_torn_at_any_byte_is_cut(tmp_path: Path) -> None:
    data = written(tmp_path / "j")
    last = data[:-1].rfind(b"\n") + 1
    for at in range(last, len(data)):
        (tmp_path / "j").write_bytes(data[:at])
        journal = Journal(tmp_path / "j")
        assert (len(journal.lines), (tmp_path / "j").read_bytes()) == (2, data[:last])
        journal.close()


def test_damage_in_the_middle_is_unreadable(tmp_path: Path) -> None:
    data = bytearray(written(tmp_path / "j"))
    data[data.find(b"0.3000")] ^= 1
    (tmp_path / "j").write_bytes(data)
    with pytest.raises(Unreadable, match="line 2 is damaged"):
        Journal(tmp_path / "j")


def test_a_line_that_is_missing_in_the_middle_is_damage(tmp_path: Path) -> None:
    lines = written(tmp_path / "j").splitlines(keepends=True)
    (tmp_path / "j").write_bytes(lines[0] + lines[2] + lines[2])
    with pytest.raises(Unreadable):
        Journal(tmp_path / "j")


def test_a_newer_version_is_refused_with_the_command_to_upgrade(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.write("header", version=2, inputs={})
    journal.close()
    with pytest.raises(Refused, match="pip install --upgrade headstart"):
        Journal(tmp_path / "j")


def test_two_processes_do_not_share_a_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    with pytest.raises(Refused, match="another process"):
        Journal(tmp_path / "j")
    journal.close()
    Journal(tmp_path / "j").close()


def test_each_line_is_json(tmp_path: Path) -> None:
    for line in written(tmp_path / "j").splitlines():
        assert json.loads(line)["sum"]


def test_time_between_sessions_is_not_charged(tmp_path: Path) -> None:
    now = 0.0
    journal = Journal(tmp_path / "j", clock=lambda: now)
    journal.write("header", version=1, inputs={})
    for seconds in (5.0, 7.0):
        now = 1.0
        journal.write("session")
        now = seconds
        journal.write("note", name="n", facts={})
    journal.close()
    assert Journal(tmp_path / "j").spent == 12.0
