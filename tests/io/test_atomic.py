"""Files and folders appear whole or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from headstart.core import Refused, Unreadable
from headstart.io import atomic


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    atomic.write_text(tmp_path / "a", "old")
    atomic.write_text(tmp_path / "a", "é\r\n")
    assert (tmp_path / "a").read_bytes() == "é\r\n".encode()
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    atomic.write_text(tmp_path / "a", "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(Unreadable, match="disk is full"):
        atomic.write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_folder_vanishes_when_its_block_fails(tmp_path: Path) -> None:
    def half() -> None:
        with atomic.new_folder(tmp_path / "a") as staging:
            (staging / "half").write_text("x")
            raise KeyError

    with pytest.raises(KeyError):
        half()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_replaced_only_when_asked(tmp_path: Path) -> None:
    with atomic.new_folder(tmp_path / "a") as staging:
        (staging / "old").write_text("x")
    with pytest.raises(Refused, match="--overwrite"), atomic.new_folder(tmp_path / "a"):
        pass
    with atomic.new_folder(tmp_path / "a", overwrite=True) as staging:
        (staging / "new").write_text("x")
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_other_errors_of_the_disk_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="strange"), atomic.writing(tmp_path):
        raise OSError(errno.EIO, "strange")
