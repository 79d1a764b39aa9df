"""Files and folders appear whole or not at all."""

from __future__ import annotations

import errno
import os
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


def test_a_folder_whose_replacement_was_killed_is_put_back_before_anything_else(tmp_path: Path) -> None:
    """Between the two renames the place is empty, and what was there lies aside."""
    place, other = tmp_path / "a[1]", tmp_path / "a[1]b"
    for folder in (place, other):
        folder.mkdir()
        (folder / "old").write_text(folder.name)
    with atomic.new_folder(other, overwrite=True) as staging:
        (staging / "new").write_text("x")
    old, gone = (tmp_path / f"{atomic._aside(place, what)}x" for what in ("old", "gone"))
    foreign = tmp_path / f"{atomic._aside(other, 'gone')}x"
    foreign.mkdir()
    place.rename(old)
    with pytest.raises(Refused, match="holds something already"), atomic.new_folder(place):
        pass
    assert (place / "old").read_text() == "a[1]"
    assert not old.exists()
    gone.mkdir()  # by one that was killed while it deleted
    with atomic.new_folder(place, overwrite=True) as staging:
        (staging / "new").write_text("x")
    assert [p.name for p in place.iterdir()] == ["new"]
    assert not gone.exists()
    old.mkdir()  # and somebody wrote to the place since
    with pytest.raises(Refused):
        atomic.refuse_occupied(place)
    assert old.is_dir()
    assert foreign.is_dir()


def test_what_another_process_moves_aside_now_is_left_to_it(tmp_path: Path) -> None:
    place = tmp_path / "a"
    old, gone = (tmp_path / f"{atomic._aside(place, what)}x" for what in ("old", "gone"))
    for folder in (old, gone):
        folder.mkdir()
        with atomic._held(folder) as ours:
            assert ours
            atomic.refuse_occupied(place)
            assert folder.is_dir()
        atomic.refuse_occupied(place, overwrite=True)
        assert not folder.exists()
    assert place.is_dir()


def test_a_folder_that_cannot_be_replaced_is_there_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, rename = tmp_path / "a", os.rename
    place.mkdir()
    (place / "old").write_text("x")

    def fails(source: Path, to: Path) -> None:
        if Path(source).name == "new":
            raise OSError(errno.EIO, "strange")
        rename(source, to)

    (tmp_path / "new").mkdir()
    monkeypatch.setattr(atomic.os, "rename", fails)
    with pytest.raises(OSError, match="strange"):
        atomic.swap_in(tmp_path / "new", place)
    assert (place / "old").read_text() == "x"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "new"]


def test_other_errors_of_the_disk_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="strange"), atomic.writing(tmp_path):
        raise OSError(errno.EIO, "strange")
