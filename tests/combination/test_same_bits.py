"""The same merge gives the same bits in another process: with other hashes, and with other numbers of threads."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

SHAPES = {"a": (400, 300), "b": (50,)}
METHODS = ("linear", "pcb", "dare", "tsv_m")  # the last decomposes matrices
CODE = """
    import sys
    from headstart.combination.merging import merge
    out, threads, methods, *folders = sys.argv[1:]
    for method in methods.split(","):
        merge(folders[1:], method, base=folders[0], out=f"{out}/{method}", threads=int(threads))
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A base and three models in float32, whose last bits no rounding hides."""
    out, draw = [], torch.Generator().manual_seed(0)
    base = {n: torch.randn(s, generator=draw) for n, s in SHAPES.items()}
    for number in range(4):
        out.append(tmp_path_factory.mktemp("model"))
        own = {n: w + 0.1 * number * torch.randn(w.shape, generator=draw) for n, w in base.items()}
        save_file(own, out[-1] / "model.safetensors", metadata={"format": "pt"})
        (out[-1] / "config.json").write_text("{}")
    return out


def merged(folders: list[Path], place: Path, *, hashes: int, threads: int, of_torch: int) -> Path:
    words = [str(place), str(threads), ",".join(METHODS), *map(str, folders)]
    own = {"PYTHONHASHSEED": str(hashes), "OMP_NUM_THREADS": str(of_torch), "MKL_NUM_THREADS": str(of_torch)}
    subprocess.run([sys.executable, "-c", textwrap.dedent(CODE), *words], env={**os.environ, **own}, check=True)
    return place


@pytest.fixture(scope="module")
def first(folders: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return merged(folders, tmp_path_factory.mktemp("first"), hashes=0, threads=1, of_torch=1)


def test_hashes_and_our_threads_change_no_bit(folders: list[Path], first: Path, tmp_path: Path) -> None:
    other = merged(folders, tmp_path, hashes=1, threads=2, of_torch=1)
    for method in METHODS:
        one, two = (place / method / "model.safetensors" for place in (first, other))
        assert one.read_bytes() == two.read_bytes(), method


def test_threads_of_torch_change_the_last_bits_of_decompositions_alone(
    folders: list[Path], first: Path, tmp_path: Path
) -> None:
    other = merged(folders, tmp_path, hashes=2, threads=2, of_torch=2)
    for method in METHODS:
        one, two = (place / method / "model.safetensors" for place in (first, other))
        if method == "tsv_m":
            tensors = load_file(two)
            for name, wanted in load_file(one).items():
                torch.testing.assert_close(tensors[name], wanted, rtol=0, atol=1e-4)
        else:
            assert one.read_bytes() == two.read_bytes(), method
