"""Where headstart keeps its own files: the bank and the cache of features."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

CACHE_BYTES = 10e9  # that the feature cache may hold; the least recently used arrays leave first


def home() -> Path:
    """`$HEADSTART_HOME`, else the user's data folder."""
    named = os.environ.get("HEADSTART_HOME")
    return Path(named).expanduser() if named else Path(platformdirs.user_data_dir("headstart", appauthor=False))


def cache_folder() -> Path:
    """The feature cache: below `$HEADSTART_HOME` where that is set, else in the user's cache folder."""
    if os.environ.get("HEADSTART_HOME"):
        return home() / "cache" / "features"
    return Path(platformdirs.user_cache_dir("headstart", appauthor=False)) / "features"


def hash_folder() -> Path:
    """Hashes of weights that have not changed since they were read, beside the feature cache."""
    return cache_folder().parent / "hashes"
