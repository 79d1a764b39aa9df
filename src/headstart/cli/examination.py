"""What this machine and installation can do."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

import psutil

from headstart import __version__
from headstart.io.places import cache_folder, home

CORE = (
    "torch", "transformers", "peft", "accelerate", "datasets", "scikit-learn", "lightgbm", "pyarrow", "safetensors",
    "tokenizers", "SQLAlchemy", "alembic", "matplotlib", "Jinja2", "typer", "rich",
)  # fmt: skip
EXTRAS = (
    ("sentence-transformers", "text", "loading saved text results with sentence-transformers"),
    ("psycopg", "postgres", "a bank on a PostgreSQL server"),
    ("onnxruntime", "onnx", "faster features in races"),
)


def examine() -> dict[str, Any]:
    """Checks as JSON values: name, ok (None where it is only a fact), what, fix."""
    checks = [
        _fact(
            "headstart",
            f"{__version__}, Python {platform.python_version()} on {platform.system()} {platform.machine()}",
        ),
        _fact(
            "processor", f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores"
        ),
        _fact(
            "memory",
            f"{psutil.virtual_memory().total / 1e9:.1f} GB, {psutil.virtual_memory().available / 1e9:.1f} GB free",
        ),
        _folder("bank", home()),
        _folder("cache", cache_folder()),
    ]
    checks += [_package(name) for name in CORE]
    checks += [_extra(*extra) for extra in EXTRAS]
    checks.append(_torchvision())
    checks.append(_accelerator())
    return {"checks": checks, "ok": all(c["ok"] is not False or c["optional"] for c in checks)}


def _line(name: str, ok: bool | None, what: str, fix: str = "", *, optional: bool = False) -> dict[str, Any]:
    return {"name": name, "ok": ok, "what": what, "fix": fix, "optional": optional}


def _fact(name: str, what: str) -> dict[str, Any]:
    return _line(name, None, what)


def _folder(name: str, folder: Path) -> dict[str, Any]:
    near = folder
    while not near.exists():
        near = near.parent
    writable = os.access(near, os.W_OK)
    free = shutil.disk_usage(near).free / 1e9
    return _line(
        name, writable, f"`{folder}`, {free:.1f} GB free", "set HEADSTART_HOME to a folder that you may write to"
    )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _package(name: str) -> dict[str, Any]:
    found = _version(name)
    return _line(name, found is not None, found or "not installed", f"pip install {name}")


def _extra(name: str, extra: str, purpose: str) -> dict[str, Any]:
    found = _version(name)
    what = f"{found}: {purpose}" if found else f"not installed: {purpose}"
    return _line(name, found is not None, what, f"pip install 'headstart[{extra}]'", optional=True)


def _torchvision() -> dict[str, Any]:
    """torchvision that does not match torch breaks transformers; images need none of it here."""
    if importlib.util.find_spec("torchvision") is None:
        return _line("torchvision", None, "not installed, and not needed: images are read by the PIL processors")
    code = "import torchvision; from transformers import AutoImageProcessor"
    import subprocess

    works = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
    what = "installed and loads" if works else "installed, and does not load with this torch: it breaks transformers"
    return _line("torchvision", works, f"{_version('torchvision')} {what}", "pip uninstall torchvision")


def _accelerator() -> dict[str, Any]:
    import torch

    if torch.cuda.is_available():
        return _fact("accelerator", torch.cuda.get_device_name(0))
    return _fact("accelerator", "none: everything runs on the processor")
