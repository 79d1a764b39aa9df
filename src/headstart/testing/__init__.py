"""The contract that each kind of method must meet, for ours and for other people's.

    from headstart.testing import laws
    for law in laws("ranking.estimators", MyMethod()):
        law(MyMethod(), seed=0)

A law is a plain function `law(method, seed)` that raises AssertionError. Each kind has a module here, named after its
folder, with `ALWAYS` (what the kind means) and `CLAIMS` (what only some of its methods keep).
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import inspect
import json
import pickle
from collections.abc import Callable
from typing import Any

from headstart import catalogue, core

Law = Callable[..., None]


def laws(kind: str, method: Any) -> list[Law]:
    """The laws of all methods, those of the kind, and those that this method claims."""
    module = importlib.import_module(f"{__name__}.{kind.replace('.', '_')}")
    unknown = set(method.claims) - set(module.CLAIMS)
    assert not unknown, f"claims {sorted(unknown)}, and this kind knows {sorted(module.CLAIMS)}"
    chance = functools.update_wrapper(functools.partial(leaves_global_chance_alone, kind), leaves_global_chance_alone)
    return [*ALWAYS, chance, *module.ALWAYS, *(module.CLAIMS[c] for c in method.claims)]


def is_a_value(method: Any, seed: int) -> None:
    cls: Any = type(method)
    frozen = dataclasses.is_dataclass(cls) and getattr(cls, "__dataclass_params__").frozen  # noqa: B009  # mypy knows it not
    assert frozen, "a method is a frozen dataclass"
    twin = dataclasses.replace(method)
    assert method == twin
    assert hash(method) == hash(twin)
    assert inspect.getmro(cls)[1:] == (object,), "a method has no base class"


def survives_travel(method: Any, seed: int) -> None:
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(method, protocol)) == method
    plain = json.loads(json.dumps(catalogue.settings(method)))
    assert catalogue.restore(type(method), plain) == method


def settings_have_names_and_defaults(method: Any, seed: int) -> None:
    for field in dataclasses.fields(method):
        assert field.kw_only, f"`{field.name}` must be keyword only"
        assert field.default is not dataclasses.MISSING, f"`{field.name}` needs a default"


def is_documented(method: Any, seed: int) -> None:
    doc = inspect.getdoc(type(method)) or ""
    for part in ("Shapes:", "Returns:", "Errors:"):
        assert part in doc, f"the docstring lacks `{part}`"
    assert method.cites, "says where it comes from in `cites`"


def does_one_thing(method: Any, seed: int) -> None:
    module = inspect.getmodule(type(method))
    assert module is not None
    length = ast.parse(inspect.getsource(module)).body[-1].end_lineno or 0
    assert length <= 200, f"{length} lines; move shared arithmetic to numerics/"


def has_the_shape_of_its_kind(kind: str, method: Any) -> None:
    """`__call__` has the parameters of the kind's Protocol, in order and by name."""
    want = inspect.signature(getattr(core, core.KINDS[kind]).__call__)
    have = inspect.signature(type(method).__call__)
    assert list(want.parameters) == list(have.parameters), f"`__call__` is {have}, and the kind asks {want}"


def leaves_global_chance_alone(kind: str, method: Any, seed: int) -> None:
    """The global generators of Python, numpy and torch are where they were after a call."""
    import random

    import numpy as np
    import torch

    def state() -> tuple[Any, Any, Any]:
        drawn: Any = np.random.get_state(legacy=True)  # noqa: NPY002  # the global state is what is looked at
        return random.getstate(), drawn[1].tobytes(), torch.random.get_rng_state()

    before = state()
    importlib.import_module(f"{__name__}.{kind.replace('.', '_')}").ALWAYS[0](method, seed)
    after = state()
    assert before[0] == after[0], "draws from Python's global generator"
    assert before[1] == after[1], "draws from numpy's global generator"
    assert torch.equal(before[2], after[2]), "draws from torch's global generator"


ALWAYS: list[Law] = [is_a_value, survives_travel, settings_have_names_and_defaults, is_documented, does_one_thing]
