"""Moments on disk: one safetensors file of float64 arrays, so that shards on several machines can be added up."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save

from headstart.core import Unfit, Unreadable
from headstart.numerics.moments import Moments

from . import atomic

FORMAT = 1


def write(moments: Moments, path: str | Path) -> None:
    """To a file, whole or not at all; one that is there is replaced."""
    atomic.write_bytes(Path(path), save(moments.arrays(), metadata={"headstart": "moments", "format": str(FORMAT)}))


def read(path: str | Path) -> Moments:
    """From a file, with the same bits. Raises `Unreadable` when it holds something else, or is newer or damaged."""
    place = Path(path)
    try:
        with safe_open(place, framework="numpy") as file:
            said = file.metadata() or {}
        arrays = load_file(place)
    except (OSError, SafetensorError) as error:
        raise Unreadable(
            f"is not a readable file of moments ({error})", where=str(place), fix="write it again"
        ) from error
    if said.get("headstart") != "moments" or not said.get("format", "").isdecimal():
        raise Unreadable(
            "holds tensors, but no moments", where=str(place), fix="name a file that `io.moments.write` wrote"
        )
    if int(said["format"]) > FORMAT:
        raise Unreadable(
            f"was written by a newer version (format {said['format']}, known here: {FORMAT})",
            where=str(place),
            fix="pip install --upgrade headstart",
        )
    try:
        return Moments.of_arrays(arrays)
    except Unfit as error:
        raise Unreadable(error.what, where=str(place), fix="write it again") from error
