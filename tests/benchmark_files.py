"""Files of `benchmarks/` as modules. Some are called like folders of the tests, which get their names back."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@contextmanager
def benchmark_files() -> Iterator[Callable[[str], ModuleType]]:
    """Gives the files by name, inside a `with`."""
    names = [file.stem for file in FOLDER.glob("*.py")]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        for name in names:
            patch.delitem(sys.modules, name, raising=False)
        yield lambda name: importlib.import_module(name)
        for name in names:
            sys.modules.pop(name, None)
