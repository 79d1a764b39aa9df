"""A journey as people write one: a plain script without a `__main__` guard. The options come as JSON."""

import functools
import json
import sys
from pathlib import Path

import pytest

import headstart as hs
from headstart import execution
from headstart.cli.show import process_start
from headstart.io.sources import scan
from journey import shelves

given = json.loads(sys.argv[1])
if given.get("jobs"):  # the name of a module whose jobs are slow, or worse
    execution.begin = functools.partial(execution.begin, jobs=given["jobs"])
if given.get("light"):  # what takes long, and is not what the test is about
    shelves.lighten(pytest.MonkeyPatch(), draw=True)
if given.get("model"):
    target = shelves.tickets(*given["rows"])
    (base,), _ = scan(given["model"])
    shelf = [shelves.named(base, name) for name in given["shelf"]]
    for source in shelf:
        shelves.fill(target, source, (shelves.signal if source.name == "good" else shelves.noise)(source))
else:
    target, shelf = shelves.prices(*given["rows"]), None
print("begun", flush=True)
with hs.Inventory(Path(given["out"]).with_suffix(".db")) as bank:
    result = hs.solve(
        target,
        bank,
        hs.Budget(**given["budget"]),
        out=given["out"],
        sources=shelf,
        resume=given.get("resume", False),
        show="none",
        started=process_start(),
    )
print(json.dumps(dict(result.summary)), flush=True)
sys.exit(130 if result.summary["interrupted"] else 0)
