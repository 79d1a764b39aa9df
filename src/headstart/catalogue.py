"""The catalogue: every method, found by its path and read without being imported.

A method is a file in the folder of its kind. Ours lie in this package; other people's lie in the package that their
distribution names under the entry point group `headstart.methods`:

    [project.entry-points."headstart.methods"]
    "ranking.estimators" = "acme_transfer.ranking"
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import importlib
import importlib.abc
import importlib.util
import pkgutil
from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from headstart.core import KINDS, Needs, Problem, Refused, Source, Target, Unfit

GROUP = "headstart.methods"

# other names that people know a method by, one published list
ALIASES: dict[str, str] = {
    "average": "linear",
    "breadcrumbs_ties": "breadcrumbs",
    "dare_linear": "dare",
    "dare_ties": "dare",
    "della_linear": "della",
    "fine_tune": "full_finetune",
    "full": "full_finetune",
    "linear_probing": "linear_probe",
    "multislerp": "multi_slerp",
    "ncm": "nmc",
    "nearest_class_mean": "nmc",
    "probe": "linear_probe",
    "ramplus_tl": "ramplus",
    "representation_surgery": "surgery",
    "skill_grafting": "graft",
    "task_tinting": "tint",
}

# what is set where a name means a method with a step replaced
IMPLIED: dict[str, dict[str, Any]] = {
    "breadcrumbs_ties": {"consensus": "elect"},
    "dare_linear": {"consensus": "sum"},
    "dare_ties": {"consensus": "elect"},
    "della_linear": {"consensus": "sum"},
}

# kinds of merges that stream, those that run or keep whole models, and kinds that read records of runs, and no rows
STREAMED = ("combination.merging", "combination.weighting", "combination.trimming")
HELD = ("combination.matching", "combination.learning", "combination.loops", "combination.routing")
OF_RECORDS = ("recall.sources", "recall.priors", "ranking.fusion")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the catalogue."""

    kind: str
    name: str
    module: str
    symbol: str
    summary: str
    needs: Needs
    claims: tuple[str, ...]
    cites: str

    @property
    def stage(self) -> str:
        return self.kind.split(".")[0]

    @property
    def rows(self) -> Literal["none", "optional", "inputs", "labels"]:
        """What it reads of rows: labels come with their inputs; optional are inputs, where there are some."""
        if self.kind in (*STREAMED, *OF_RECORDS):
            return "none"
        if self.kind == "combination.routing" and "features" not in self.needs.gives:
            return "optional"
        return "labels" if self.needs.labels else "inputs"

    @property
    def holds(self) -> Literal["tiles", "tensors", "model"] | None:
        """The least that a merge holds in memory; None where nothing is merged."""
        if self.kind in STREAMED:
            # shares of models come from inner products, which are sums over tiles
            whole = self.needs.whole_tensors and self.kind != "combination.weighting"
            return "tensors" if whole else "tiles"
        return "model" if self.kind in HELD else None

    def load(self) -> type[Any]:
        """The class itself; the first moment at which the method's file is imported."""
        return getattr(importlib.import_module(self.module), self.symbol)  # type: ignore[no-any-return]  # by name


@cache
def entries(kind: str) -> dict[str, Entry]:
    """Name -> entry, sorted; other people's names are prefixed with their package."""
    if kind not in KINDS:
        raise Unfit(f"no kind of method is called `{kind}`", where="catalogue", fix=f"use one of: {', '.join(KINDS)}")
    found: dict[str, Entry] = {}
    for package, prefix in _packages(kind):
        spec = importlib.util.find_spec(package)
        if spec is None or spec.submodule_search_locations is None:
            continue
        for info in pkgutil.iter_modules(spec.submodule_search_locations):
            if not info.ispkg and not info.name.startswith("_"):
                name = prefix + info.name
                found[name] = read(kind, name, f"{package}.{info.name}")
    return dict(sorted(found.items()))


def _packages(kind: str) -> list[tuple[str, str]]:
    from importlib.metadata import entry_points  # a sixth of the time that `import headstart` takes

    own = [(f"headstart.{kind}", "")]
    theirs = [(e.value, e.value.split(".")[0] + ":") for e in entry_points(group=GROUP, name=kind)]
    return own + sorted(theirs)


def read(kind: str, name: str, module: str) -> Entry:
    """Read the one public class of a method file from its syntax tree. Raises `Problem` where there is not one."""
    spec = importlib.util.find_spec(module)
    loader = spec.loader if spec is not None else None
    text = loader.get_source(module) if isinstance(loader, importlib.abc.InspectLoader) else None
    if text is None:
        raise Problem(
            "the source text is not in this install",
            where=f"`{module}`",
            fix="install the wheel; an install of byte code only has no catalogue",
        )
    tree = ast.parse(text)
    classes = [n for n in tree.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_")]
    if len(classes) != 1:
        raise Problem(
            f"a method file holds one public class, and this one holds {len(classes)}",
            where=f"`{module}`",
            fix="move the others to files of their own, or to numerics/",
        )
    node = classes[0]
    facts = {
        t.id: s.value for s in node.body if isinstance(s, ast.Assign) for t in s.targets if isinstance(t, ast.Name)
    }
    try:
        call = facts["needs"]
        if not (isinstance(call, ast.Call) and getattr(call.func, "id", "") == "Needs" and not call.args):
            raise ValueError("needs is not `Needs(name=value, …)`")
        needs = Needs(**{k.arg: ast.literal_eval(k.value) for k in call.keywords if k.arg})
        claims, cites = ast.literal_eval(facts["claims"]), ast.literal_eval(facts["cites"])
    except (KeyError, ValueError, TypeError) as error:
        raise Problem(
            f"`needs`, `claims` and `cites` must be there, as literals ({error!r})",
            where=f"class `{node.name}` of `{module}`",
            fix='write `needs = Needs(…)`, `claims = (…)` and `cites = "…"` with plain values in the class body',
        ) from error
    summary = (ast.get_docstring(node) or "").split("\n")[0]
    return Entry(kind, name, module, node.name, summary, needs, claims, cites)


def entry(kind: str, name: str) -> Entry:
    """The entry of that name; a hyphen equals an underscore, and aliases are known. Raises `Unfit` with near names."""
    known = entries(kind)
    plain = known_as(name, known)
    if plain not in known:
        near = difflib.get_close_matches(plain, [*known, *(a for a, of in ALIASES.items() if of in known)], n=3)
        others = [other for other in KINDS if plain in entries(other)]
        fix = f"see `headstart methods {kind}`" + (f"; `{plain}` is one of `{others[0]}`" if others else "")
        raise Unfit(
            f"no method of `{kind}` is called `{name}`",
            where=f"the methods of `{kind}`",
            fix=f"did you mean {' or '.join(f'`{n}`' for n in near)}?" if near and not others else fix,
        )
    return known[plain]


def kind_of(name: str, kinds: Sequence[str]) -> str:
    """Which of these kinds has the method of that name, or else of the nearest; the first kind where none is near.

    >>> kind_of("e-leep", ("ranking.estimators", "ranking.sets")), kind_of("?", ("ranking.estimators", "ranking.sets"))
    ('ranking.sets', 'ranking.estimators')
    """
    plain = _spelt(name)
    known = {word: kind for kind in reversed(kinds) for word in entries(kind)}
    near = difflib.get_close_matches(plain, known, n=1)
    return known.get(plain) or (known[near[0]] if near else kinds[0])


def known_as(name: str, known: Container[str]) -> str:
    """How a name is spelt in the catalogue, or the name that it is an alias of.

    >>> known_as("Model-Stock", {"model_stock"}), known_as("multislerp", {"multi_slerp"})
    ('model_stock', 'multi_slerp')
    """
    plain = _spelt(name)
    return plain if plain in known else ALIASES.get(plain, plain)


def implied(name: str, known: Container[str]) -> dict[str, Any]:
    """The settings that a name means, beside those of the method that it is an alias of.

    >>> implied("dare-ties", {"dare"}), implied("dare", {"dare"})
    ({'consensus': 'elect'}, {})
    """
    plain = _spelt(name)
    return {} if plain in known else dict(IMPLIED.get(plain, {}))


def _spelt(name: str) -> str:
    return name.strip().lower().replace("-", "_")


def make(kind: str, method: Any, **settings: Any) -> Any:
    """A name becomes an instance; an instance is used as it is, registered or not."""
    if not isinstance(method, str):
        return method
    found = entry(kind, method)
    if reason := missing(found):
        raise Refused(reason, where=f"method `{found.name}`", fix=install_hint(found))
    cls = found.load()
    known = {f.name for f in dataclasses.fields(cls)}
    settings = {**implied(method, entries(kind)), **settings}
    for name in settings:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise Unfit(
                f"`{found.name}` has no setting `{name}`",
                where=f"settings of `{found.name}`",
                fix=f"did you mean `{near[0]}`?" if near else f"its settings are: {', '.join(sorted(known)) or 'none'}",
            )
    for field in dataclasses.fields(cls):
        if field.name in settings:
            _check_type(found.name, field, settings[field.name])
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()})


def _check_type(name: str, field: dataclasses.Field[Any], value: Any) -> None:
    """A value of another sort than the default would fail after the data is read, or not at all."""
    default = field.default
    sorts: dict[type, tuple[str, tuple[type, ...]]] = {
        bool: ("true or false", (bool,)),
        int: ("a whole number", (int,)),
        float: ("a number", (int, float)),
        str: ("a word", (str,)),
        tuple: ("a list, like 0.7,0.3", (list, tuple)),
    }
    if type(default) not in sorts or (value is None and "None" in str(field.type)):
        return
    if isinstance(value, list | tuple) and "tuple" in str(field.type):
        return
    said, fitting = sorts[type(default)]
    if not isinstance(value, fitting) or (isinstance(value, bool) and bool not in fitting):
        raise Unfit(
            f"`{field.name}` is {value!r}, and takes {said}",
            where=f"settings of `{name}`",
            fix=f"write it like {field.name}={default if default != () else '0.7,0.3'}",
        )


def missing(found: Entry) -> str | None:
    """The package that is not installed, in a sentence, or None."""
    for module, _ in found.needs.extras:
        if importlib.util.find_spec(module) is None:
            return f"`{found.name}` needs the package `{module}`"
    return None


def install_hint(found: Entry) -> str:
    return "; ".join(f"pip install 'headstart[{extra}]'" for extra in dict.fromkeys(e for _, e in found.needs.extras))


def refusal(needs: Needs, sources: Sequence[Source] = (), target: Target | None = None) -> str | None:
    """Why a method with these needs cannot run here, in words, or None. Asked before anything is spent."""
    for source in sources:
        for gift in needs.gives:
            if gift not in source.gives and not (gift == "predictions" and "word_predictions" in source.gives):
                return f"needs {gift}, and `{source.name}` gives {', '.join(source.gives) or 'nothing'} only"
        if "predictions" in needs.gives and (reason := _of_other_rows(needs, source, target)):
            return reason
        if source.modality not in needs.modalities:
            return f"works on {', '.join(needs.modalities)}, and `{source.name}` is a model of {source.modality}s"
    if needs.same_base and len({s.base for s in sources}) > 1:
        return f"needs sources of one base, and these have {len({s.base for s in sources})}"
    if target is None:
        return None
    if target.task.type not in needs.tasks:
        return f"works on {_listed(needs.tasks)} tasks, and this one is {_listed((target.task.type,))}"
    if target.modality not in needs.modalities:
        return f"works on {', '.join(needs.modalities)} inputs, and these are {target.modality}"
    if target.task.pair and not needs.pairs:
        return "works on single inputs, and these are text pairs"
    if needs.labels and not len(target.labelled):
        return "needs labelled target rows, and the target has none"
    for source in sources:
        if source.modality != target.modality:
            return f"`{source.name}` reads {source.modality}, and the target's inputs are {target.modality}"
    return None


def _of_other_rows(needs: Needs, source: Source, target: Target | None) -> str | None:
    """Why a source's own head does not predict what there are labels of, words or whole rows; or None."""
    of_words = "word_predictions" in source.gives
    fits = (not of_words or "tagging" in needs.tasks) if target is None else of_words == (target.task.type == "tagging")
    if fits:
        return None
    wanted, told = ("whole rows", "a tag for each word") if of_words else ("each word", "whole rows")
    return f"needs predictions of {wanted}, and the head of `{source.name}` predicts {told}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(n.replace("_", "-") for n in names)


def settings(method: Any) -> dict[str, Any]:
    """Settings as JSON values; a method inside a method becomes its address and its settings."""
    return {f.name: _plain(getattr(method, f.name)) for f in dataclasses.fields(method)}


def defaults(cls: type[Any]) -> dict[str, Any]:
    """The settings that have a default, as JSON values."""
    return {f.name: _plain(f.default) for f in dataclasses.fields(cls) if f.default is not dataclasses.MISSING}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {"method": address(type(value)), "settings": settings(value)}
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def address(cls: type[Any]) -> str:
    """`kind/name` of a method in the catalogue; `?module:class` of one that is not in it."""
    at = cls.__module__, cls.__qualname__
    return _addresses().get(at) or f"?{at[0]}:{at[1]}"


@cache
def _addresses() -> dict[tuple[str, str], str]:
    return {(e.module, e.symbol): f"{kind}/{e.name}" for kind in KINDS for e in entries(kind).values()}


def name_of(method: Any) -> str:
    """The name of a method's file in the catalogue; of one that is not in it, its address."""
    found = address(type(method))
    return found if found.startswith("?") else found.partition("/")[2]


def restore(cls: type[Any], plain: dict[str, Any]) -> Any:
    """The inverse of `settings`. Only methods of the catalogue come back: a receipt is data, and runs no code."""
    return cls(**{name: _value(v) for name, v in plain.items()})


def _value(plain: Any) -> Any:
    if isinstance(plain, dict):
        kind, _, name = plain["method"].partition("/")
        if kind not in KINDS or name not in entries(kind):
            raise Problem(
                f"the receipt names `{plain['method']}`, which is not in the catalogue",
                where="settings of a receipt",
                fix="install the package that provides it",
            )
        return restore(entries(kind)[name].load(), plain["settings"])
    return tuple(_value(v) for v in plain) if isinstance(plain, list) else plain
