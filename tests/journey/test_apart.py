"""A saved result predicts the same in a process without network, after everything it was made from is gone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import headstart as hs
from journey import shelves

SOURCE = Path(__file__).parents[2] / "src"
CODE = """
import json, socket, sys

def blocked(*given, **more):
    raise OSError("the network is not to be used")

socket.socket.connect = socket.socket.connect_ex = socket.create_connection = socket.getaddrinfo = blocked
sys.path.insert(0, sys.argv[1])
import headstart as hs
result = hs.load(sys.argv[2])
found = result.predict(json.loads(sys.argv[3]))
print(json.dumps([found.labels, found.probabilities]))
"""


def predicted_apart(result: Path, rows: list[str]) -> tuple[list[Any], Any]:
    """By an interpreter that sees no settings of this one (-I), and no network."""
    command = [sys.executable, "-I", "-c", CODE, str(SOURCE), str(result), json.dumps(rows)]
    plain = {name: os.environ[name] for name in ("PATH", "OMP_NUM_THREADS", "HOME") if name in os.environ}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=plain, cwd=result.parent)
    assert done.returncode == 0, done.stderr
    labels, probabilities = json.loads(done.stdout.splitlines()[-1])
    return labels, np.array(probabilities)


def solved_and_moved(tmp_path: Path, home: Path) -> tuple[Path, hs.Target]:
    """A result of features that a model really computed; then the model, bank, cache and run are deleted."""
    base = shelves.model(tmp_path / "model")
    both = shelves.texts(100, told=1.0)
    target = hs.read_target(both.slice(0, 60), label="label", text="text", test=both.slice(60))
    result = shelves.solved(target, [base], tmp_path / "out", hs.Inventory(), when_unsure="best")
    assert result.summary["returned"] == "chosen"
    moved = tmp_path / "moved" / "result"
    moved.parent.mkdir()
    shutil.move(tmp_path / "out", moved)
    for gone in (tmp_path / "model", home, moved / "run"):
        shutil.rmtree(gone)
    return moved, target


def check(moved: Path, target: hs.Target) -> None:
    kept = pq.read_table(moved / "predictions.parquet").to_pydict()
    texts = shelves.sealed_rows(target).inputs["text"].to_pylist()
    labels, probabilities = predicted_apart(moved, texts)
    assert labels == kept["chosen: predicted"]
    np.testing.assert_allclose(probabilities[:, 1], kept["chosen: p(class 1)"], atol=1e-5)  # batches differ


@pytest.mark.usefixtures("light")
def test_a_probe_needs_nothing_but_its_folder(tmp_path: Path, home: Path) -> None:
    check(*solved_and_moved(tmp_path, home))
