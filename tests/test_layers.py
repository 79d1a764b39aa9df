"""Imports point inwards, no stage imports another, arithmetic touches no disk, and `import headstart` is light."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1] / "src" / "headstart"
STAGES = {"inspection", "recall", "ranking", "adaptation", "combination"}
BELOW: dict[str, set[str]] = {
    "core": set(),
    "numerics": {"core"},
    "io": {"core", "numerics"},
    "catalogue": {"core"},
    "inventory": {"core", "numerics", "io"},
    "execution": {"core", "numerics", "io", "inventory", "catalogue"},
    **{stage: {"core", "numerics", "io", "execution", "inventory", "catalogue"} for stage in STAGES},
    "evidence": {"core", "numerics", "catalogue"},
    "testing": {"core", "numerics", "io", "execution", "catalogue"},  # what a merge gives follows from no file's layout
}
METHOD = {"core", "numerics"}
TRAINING_DOOR = "headstart.execution.fit"  # the one other door of methods that train
BELOW["flow"] = {*STAGES, "evidence", "core", "inventory", "execution", "io", "catalogue", "numerics"}
# outcome writes what the flow made, with the account of it
BELOW["flow"] = BELOW["outcome"] = BELOW["account"] = BELOW["flow"] | {"outcome", "account", "__init__"}
BELOW["__init__"] = {*STAGES, "evidence", "core", "flow", "outcome", "inventory", "execution", "io", "catalogue"}
BELOW["cli"] = BELOW["__init__"] | {"__init__", "numerics", "demonstration"}
BELOW["__main__"] = {"cli"}
BELOW["demonstration"] = BELOW["__init__"] | {"__init__", "numerics"}
KIND_FOLDERS = (
    "recall/sources",
    "recall/priors",
    "ranking/estimators",
    "ranking/sets",
    "ranking/divergences",
    "ranking/similarity",
    "adaptation/baselines",
    "adaptation/routes",
    "combination/merging",
    "combination/weighting",
    "combination/trimming",
    "combination/matching",
    "combination/learning",
    "combination/loops",
    "combination/routing",
    "combination/fusion",
    "evidence/checks",
)
DISK = {"os", "pathlib", "shutil", "tempfile", "time", "socket", "urllib", "requests", "sqlite3", "logging", "rich"}
HEAVY = {
    "numpy", "torch", "transformers", "peft", "sklearn", "scipy", "pandas", "pyarrow", "datasets", "accelerate",
    "sentence_transformers", "sqlalchemy", "alembic", "matplotlib", "PIL", "numba", "lightgbm", "onnxruntime",
    "optuna", "ray",
}  # fmt: skip


def imports(path: Path) -> Iterator[str]:
    """Absolute names that a file imports anywhere but under TYPE_CHECKING."""
    tree = ast.parse(path.read_text())
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    package = ("headstart", *path.relative_to(ROOT).parts[:-1])
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(p for p in (base, node.module) if p)
            ours = module.split(".")[0] == "headstart"
            yield from (f"{module}.{a.name}" for a in node.names) if ours else (module,)
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names)


def is_method(path: Path) -> bool:
    inside = path.relative_to(ROOT).as_posix()
    return path.name[0] != "_" and any(inside.startswith(f + "/") for f in KIND_FOLDERS)


def test_imports_point_inwards() -> None:
    wrong = []
    for path in sorted(ROOT.rglob("*.py")):
        inside = path.relative_to(ROOT)
        room = inside.parts[0].removesuffix(".py")
        for name in imports(path):
            first, *rest = name.split(".")
            if first == "headstart" and rest:
                allowed = METHOD if is_method(path) else BELOW[room] | {room}
                door = is_method(path) and name.startswith(TRAINING_DOOR)
                if rest[0] not in {*allowed, "__version__"} and not door:
                    wrong.append(f"{inside} imports {name}")
            if room == "numerics" and first in DISK:
                wrong.append(f"{inside} touches {first}")
    assert not wrong, "\n".join(wrong)


def test_no_method_imports_another() -> None:
    methods = {
        f"headstart.{p.relative_to(ROOT).with_suffix('').as_posix().replace('/', '.')}"
        for p in ROOT.rglob("*.py")
        if is_method(p)
    }
    wrong = [
        f"{p} imports {n}"
        for p in ROOT.rglob("*.py")
        if is_method(p)
        for n in imports(p)
        if methods & {n, n.rpartition(".")[0]}
    ]
    assert not wrong, "\n".join(wrong)


def test_import_is_light() -> None:
    code = (
        "import sys, headstart, headstart.cli\nfrom headstart import catalogue as c\n"
        "from headstart.core import KINDS\nfor k in KINDS: c.entries(k)\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT.parent)},
    )
    assert out.stdout.strip() == "[]"


def test_every_module_has_future_annotations_and_a_docstring() -> None:
    wrong = []
    for path in sorted(ROOT.rglob("*.py")):
        tree = ast.parse(path.read_text())
        if ast.get_docstring(tree) is None:
            wrong.append(f"{path.relative_to(ROOT)} has no docstring")
    assert not wrong, "\n".join(wrong)
