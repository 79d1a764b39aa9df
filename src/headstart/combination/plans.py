"""The plan of a merge: what becomes of every tensor, by which rule, before a byte of it is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from math import prod
from typing import TYPE_CHECKING, Any, Literal, get_args

from headstart.core import Refused, Routed, Unfit
from headstart.io.tensor_names import modern, names_in

from .accounts import used
from .heads import head_of, is_label_wise, kept, numbered, places_of
from .slices import depths
from .tokens import related
from .vocabularies import VOCABULARY, VocabularyRule, Words

if TYPE_CHECKING:
    from headstart.io.model_folders import ModelFolder
    from headstart.io.safetensors_files import Entry
    from headstart.numerics.made import Kind, Made, Part

    from .searches import Search

Heads = Literal["average", "concatenate", "separate", "refuse"]
Unmatched = Literal["refuse", "drop"]
HEADS: tuple[str, ...] = get_args(Heads)
UNMATCHED: tuple[str, ...] = get_args(Unmatched)
DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
TAKEN = ("merge.json", "README.md", "written.txt", "routing")  # what lies beside the models' folders
STATISTICS = ("running_mean", "running_var")


# which method merges a tensor: by its name in the result, its names in the folders (None where it
# has none), and how many entries it has
Choice = Callable[[str, Sequence[str | None], int], "tuple[Kind, Any]"]


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of a tensor: `merged`, `copied` or `dropped`, and the rule. model: whose it was, if dropped."""

    how: Literal["merged", "copied", "dropped"]
    rule: str
    model: str = ""


@dataclass(frozen=True, eq=False, slots=True)
class Plan:
    """All that a merge will do. donor: whose configuration and files the result gets.

    folders: what is read, by the parts' numbers. method, settings: as a receipt says them.
    fates: by tensor of the result; lost: (model, tensor) of those that are not in it.
    config: what the donor's configuration gets beside the labels. texts: files with a text of their own, by name.
    words: how the vocabularies of the models relate, None without any.
    apart: where every model keeps its own head, a folder of the result for each, in their order, with the tensors of
    the result that are its head; empty where one model is made.
    before: models that are made first, by name, and name: that of this one; again: the plan, once those before it lie
    on the disk.
    reads: a method that reads rows first; until then every tensor has what stands in for it. learned: what came of
    that, for the receipt; it holds all that decides about bytes of the result and is in no method. routed: what is kept
    apart of the merged body, where a method keeps something. alike: the models' cosines, where a method asks for them.
    search: numbers of a recipe that rows are to find; until then they are what the search begins with.
    """

    folders: tuple[ModelFolder, ...]
    donor: ModelFolder
    base: ModelFolder | None
    models: tuple[ModelFolder, ...]
    method: str
    settings: Mapping[str, Any]
    made: tuple[Made, ...]
    fates: Mapping[str, Fate]
    lost: Mapping[tuple[str, str], Fate]
    labels: tuple[str, ...] | None
    dtype: str | None
    seed: int
    warnings: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    words: Words | None = None
    apart: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    before: tuple[tuple[str, Plan], ...] = ()
    name: str = ""
    again: Callable[[Mapping[str, ModelFolder]], Plan] | None = None
    reads: Any = None
    learned: Mapping[str, Any] = field(default_factory=dict)
    routed: Routed | None = None
    alike: Mapping[str, Any] = field(default_factory=dict)
    search: Search | None = None

    @property
    def results(self) -> list[tuple[str, ModelFolder, tuple[str, ...] | None]]:
        """The models that are made: folder below the result ("" or like "mails/"), whose files it has, its labels."""
        if not self.apart:
            return [("", self.donor, self.labels)]
        return [(f"{place}/", m, m.labels) for place, m in zip(self.apart, self.models, strict=True)]

    @property
    def bytes_written(self) -> int:
        return sum(m.bytes for m in self.made)


def plan(
    models: Sequence[ModelFolder], base: ModelFolder | None, method: Any, kind: Kind, *, heads: Heads = "average",
    unmatched: Unmatched = "refuse", vocabulary: VocabularyRule = "refuse", dtype: str | None = None, seed: int = 0,
) -> Plan:  # fmt: skip
    """One method for all tensors. Raises `Refused` where the models do not fit together, naming the tensor."""
    from headstart import catalogue

    check(models, base, method, heads, unmatched, dtype, vocabulary)

    def always(*_: Any) -> tuple[Kind, Any]:
        return kind, method

    found = planned_by(always, models, base, heads, unmatched, vocabulary, dtype)
    return replace(found, method=catalogue.name_of(method), settings=catalogue.settings(method), seed=seed)


def planned_by(
    choose: Choice, models: Sequence[ModelFolder], base: ModelFolder | None, heads: Heads, unmatched: Unmatched,
    vocabulary: VocabularyRule, dtype: str | None,
) -> Plan:  # fmt: skip
    """A plan in which every tensor has the method that is chosen for it; the plan's own name is still to be given."""
    from headstart.io.tied import untied

    models = untied(models)
    folders = (*([base] if base is not None else []), *models)
    words = related(models, base, vocabulary)
    planner = Planner(folders, base, models[0], choose, heads, unmatched, dtype, words)
    made = tuple(planner.made())
    givers = models if planner.apart else models[:1]
    warnings = (*planner.warnings, *(words.warned(givers) if words is not None else ()))
    return Plan(
        folders, models[0], base, tuple(models), "", {}, made, planner.fates, planner.lost, planner.labels, dtype, 0,
        warnings, words=words, apart=planner.apart,
    )  # fmt: skip


def check(
    models: Sequence[ModelFolder], base: ModelFolder | None, method: Any, heads: str, unmatched: str,
    dtype: str | None, vocabulary: str = "refuse",
) -> None:  # fmt: skip
    name = _name(method)
    rules = (("heads", heads, HEADS), ("unmatched", unmatched, UNMATCHED), ("vocabulary", vocabulary, VOCABULARY))
    for said, value, known in rules:
        if value not in known:
            raise Unfit(f"{said} is `{value}`", where=f"--{said}", fix=f"use one of: {', '.join(known)}")
    check_dtype(dtype, "--dtype")
    fewest, most = method.needs.fewest, method.needs.most
    if len(models) < fewest or (most is not None and len(models) > most):
        wanted = f"{fewest}" if fewest == most else f"{fewest} or more" if most is None else f"{fewest} to {most}"
        raise Refused(
            f"`{name}` takes {wanted} model{'' if wanted == '1' else 's'}, not {len(models)}",
            where=f"merge of {', '.join(f'`{m.name}`' for m in models) or 'nothing'}",
            fix="name the models after the method; the base goes to --base",
        )
    if method.needs.same_base and base is None:
        raise Refused(
            f"`{name}` works on what fine-tunes changed, and no base is given",
            where=f"merge of {', '.join(f'`{m.name}`' for m in models)}",
            fix="name the model that they started from: --base FOLDER",
        )


def check_dtype(dtype: str | None, where: str) -> None:
    if dtype is not None and dtype not in DTYPES:
        near = get_close_matches(dtype, DTYPES, n=1)
        raise Unfit(
            f"weights cannot be written as `{dtype}`",
            where=where,
            fix=f"did you mean `{near[0]}`?" if near else f"use one of: {', '.join(DTYPES)}",
        )


def check_words(plan: Plan) -> None:
    """Rows of text can be read for a merge only with the tokenizer that its result has."""
    if plan.words is not None and plan.donor.name in plan.words.rows:
        raise Refused(
            f"rows are read with the tokenizer of `{plan.donor.name}`, and the result would have another vocabulary",
            where="merge by a method that reads rows",
            fix="keep the tokens of the first model: --vocabulary first",
        )


def _name(method: Any) -> str:
    from headstart import catalogue

    return catalogue.name_of(method)


class Planner:
    """Matches the tensors of some folders with those of the donor, and gives each its method and its rule.

    folders: the base first, where there is one. donor: one of them, whose tensors the result has.
    """

    def __init__(
        self, folders: Sequence[ModelFolder], base: ModelFolder | None, donor: ModelFolder, choose: Choice,
        heads: Heads = "average", unmatched: Unmatched = "refuse", dtype: str | None = None,
        words: Words | None = None,
    ) -> None:  # fmt: skip
        self.folders, self.base, self.donor, self.choose = folders, base, donor, choose
        self.models = folders[1:] if base is not None else folders
        self.heads, self.unmatched, self.dtype = heads, unmatched, dtype
        self.words = words
        self.names = [names_in(folder, self.donor) for folder in folders]
        self.depths = depths(donor.tensors)
        self.fates: dict[str, Fate] = {}
        self.lost: dict[tuple[str, str], Fate] = {}
        self.warnings = [note for folder in folders for note in folder.notes]
        self.labels = self._all_labels()
        self.own = self._own_heads()
        self.apart: dict[str, tuple[str, ...]] = {}

    def made(self) -> Iterator[Made]:
        made = []
        for name, entry in self.donor.tensors.items():
            one = None if name in self.own.get(self.donor.name, ()) else self._one(name, entry)
            if one is not None:
                made.append(one)
        self._account_for_the_rest(used(made, self.folders))
        yield from made
        if self.own:
            beside = {n.partition("/")[0] for n in self.donor.tensors if "/" in n}
            places = places_of([m.name for m in self.models], (*beside, *TAKEN))
            for place, model in zip(places, self.models, strict=True):
                head = kept(model, self.folders.index(model), self.own[model.name], place, DTYPES.get(self.dtype or ""))
                self.apart[place] = tuple(one.name for one in head)
                self.fates |= {name: Fate("copied", f"head of `{model.name}`") for name in self.apart[place]}
                yield from head

    def _one(self, name: str, entry: Entry) -> Made | None:
        lacking = [f.name for f, names in zip(self.folders, self.names, strict=True) if name not in names]
        tuned_lack = [n for n in lacking if self.base is None or n != self.base.name]
        if entry.dtype not in DTYPES.values():
            return self._copied(name, entry, lacking)
        if tuned_lack:
            if self.unmatched == "drop":
                rule = f"`{tuned_lack[0]}` has no such tensor"
                stored = self.donor.stored.get(name, name)
                self.lost[self.donor.name, stored] = Fate("dropped", rule, self.donor.name)
                return None
            raise self._no_tensor(name, tuned_lack[0])
        if name.rpartition(".")[2] in STATISTICS and not any("running" in w for w in self.warnings):
            self.warnings.append(
                f"running statistics such as `{name}` are merged like weights; renew them by a pass over data"
            )
        if is_label_wise(self.donor, name):
            return self._head(name, entry)
        moved = self.words is not None and not self.words.as_they_are
        shape = self.words.shape(name, self.donor, entry.shape) if self.words is not None and moved else None
        if shape is not None:
            return self._of_words(name, entry, shape)
        self._check_shapes(name, entry)
        self._check_names(name)
        parts = [self._part(i, name) for i in range(len(self.folders))]
        return self._merged(name, entry, entry.shape, parts)

    def _of_words(self, name: str, entry: Entry, shape: tuple[int, ...]) -> Made:
        """Rows by their tokens; one that a model lacks is the base's, else what the others make of it."""
        assert self.words is not None
        parts: list[Part | None] = []
        for i, folder in enumerate(self.folders):
            part = self._part(i, name)
            if part is not None:
                theirs = folder.tensors[part.name].shape
                if self.words.shape(part.name, folder, theirs) != shape:
                    raise self._shapes_differ(name, entry, folder, theirs)
            parts.append(part)
        return self._merged(name, entry, shape, self.words.placed(parts, self.folders), "by token")

    def _merged(
        self, name: str, entry: Entry, shape: tuple[int, ...], parts: Sequence[Part | None], how: str = ""
    ) -> Made:
        from headstart.combination.weighting.linear import Linear
        from headstart.io.safetensors_files import WIDTHS
        from headstart.numerics.made import Made, Part

        base = parts[0] if self.base is not None else None
        tuned = tuple(p for p in parts[1 if self.base is not None else 0 :] if isinstance(p, Part))
        own = [p.name if p is not None else None for p in parts]
        kind, method = self.choose(name, own, prod(shape))
        rule = f"`{_name(method)}`"
        if base is None and self.base is not None:  # what the base has not cannot have changed
            lacks = "other labels" if name in self.names[0] else "no such tensor"
            kind, method, rule = "weighting", Linear(), f"the mean, as `{self.base.name}` has {lacks}"
        dtype = DTYPES[self.dtype] if self.dtype else (base.dtype if base is not None else entry.dtype)
        self.fates[name] = Fate("merged", f"{rule}, rows {how}" if how else rule)
        return Made(name, dtype, WIDTHS[dtype], shape, base, tuned, kind, method, self.depths.get(name))

    def _copied(self, name: str, entry: Entry, lacking: Sequence[str]) -> Made:
        from headstart.io.safetensors_files import WIDTHS
        from headstart.numerics.made import Made

        if entry.dtype.startswith(("F8", "C")):
            raise Refused(
                f"tensor `{name}` is stored as {entry.dtype}, of which no mean can be taken",
                where=f"model `{self.donor.name}`",
                fix="write the model as bfloat16 or float32 first",
            )
        owner = 0 if self.base is not None and self.base.name not in lacking else self.folders.index(self.donor)
        part = self._part(owner, name)
        assert part is not None
        self.fates[name] = Fate("copied", f"whole numbers, from `{self.folders[owner].name}`")
        return Made(name, part.dtype, WIDTHS[part.dtype], entry.shape, part)

    def _part(self, folder: int, name: str) -> Part | None:
        from headstart.numerics.made import Part

        theirs = self.names[folder].get(name)
        if theirs is None:
            return None
        dtype = self.folders[folder].tensors[theirs].dtype
        if dtype not in DTYPES.values() and self.donor.tensors[name].dtype in DTYPES.values():
            raise Refused(
                f"tensor `{name}` is stored as {dtype}, of which no mean can be taken",
                where=f"model `{self.folders[folder].name}`",
                fix="write the model as bfloat16 or float32 first",
            )
        return Part(folder, theirs, self.folders[folder].read_as(theirs))

    def _check_shapes(self, name: str, entry: Entry) -> None:
        for folder, names in zip(self.folders, self.names, strict=True):
            theirs = folder.tensors[names[name]] if name in names else entry
            if theirs.shape != entry.shape:
                raise self._shapes_differ(name, entry, folder, theirs.shape)

    def _shapes_differ(self, name: str, entry: Entry, folder: ModelFolder, theirs: Sequence[int]) -> Refused:
        return Refused(
            f"tensor `{name}` has shape {_shape(entry.shape)} in `{self.donor.name}` and "
            f"{_shape(theirs)} in `{folder.name}`",
            where="merge",
            fix="merge fine-tunes of one architecture and one base",
        )

    def _no_tensor(self, name: str, model: str) -> Refused:
        return Refused(
            f"tensor `{name}` of `{self.donor.name}` is not in `{model}`",
            where=f"merge of {', '.join(f'`{m.name}`' for m in self.models)}",
            fix="merge models of one architecture, or leave out what not all have with --unmatched drop",
        )

    def _all_labels(self) -> tuple[str, ...] | None:
        """The labels of the result: the donor's, or the union in order of appearance."""
        if self.donor.labels is None or self.heads == "separate":
            return None
        sets = [m.labels or () for m in self.models]
        if len(self.models) > 1 and all(map(numbered, sets)):
            some = ", ".join(self.donor.labels[:2])
            self.warnings.append(f"the labels are {some}, …: that they mean the same in all is taken on trust")
        same = all(sorted(s) == sorted(sets[0]) for s in sets)
        if same and self.heads != "concatenate":
            if self.heads == "refuse" and any(s != sets[0] for s in sets):
                raise self._labels_differ(sets)
            return self.donor.labels
        if self.heads == "concatenate":
            return tuple(dict.fromkeys(label for s in sets for label in s))
        raise self._labels_differ(sets)

    def _labels_differ(self, sets: Sequence[Sequence[str]]) -> Refused:
        other = next(i for i, s in enumerate(sets) if tuple(s) != tuple(sets[0]))
        odd = sorted(set(sets[other]) ^ set(sets[0]))
        what = f"`{odd[0]}` is a label of one only" if odd else "they name the same labels in another order"
        return Refused(
            f"the heads of `{self.donor.name}` and `{self.models[other].name}` have different labels: {what}",
            where="merge",
            fix="keep every head with --heads separate, put one after the other with --heads concatenate, or merge "
            "models of one task",
        )

    def _head(self, name: str, entry: Entry) -> Made:
        """Rows by the names of their labels; a label that a model lacks is what the others make of it."""
        import numpy as np

        from headstart.numerics.made import Part

        assert self.labels is not None
        plain: list[Part | None] = []
        for i, folder in enumerate(self.folders):
            part = self._part(i, name)
            labels = folder.labels
            shape = folder.tensors[part.name].shape if part is not None else ()
            if part is not None and (labels is None or not shape or shape[0] != len(labels)):
                part = None  # a base whose head is for something else
            if part is not None and labels is not None:
                where = {label: at for at, label in enumerate(labels)}
                rows = np.array([where.get(label, -1) for label in self.labels])
                same = labels == self.labels
                part = Part(part.model, part.name, part.dtype, None if same else rows)
            plain.append(part)
        begin = 1 if self.base is not None else 0
        if begin and plain[0] is not None and plain[0].rows is not None and bool((plain[0].rows < 0).any()):
            plain[0] = None  # it knows some of the labels only
        having = [p for p in plain[begin:] if p is not None]
        parts = plain[:begin] + [_filled(p, having) for p in plain[begin:]]
        moved = any(p is not None and p.rows is not None for p in parts)
        shape = (len(self.labels), *entry.shape[1:])
        return self._merged(name, entry, shape, parts, "by label name" if moved else "")

    def _own_heads(self) -> dict[str, frozenset[str]]:
        """Tensors that are not merged but stay with their model, by the model; of the base, those in their places."""
        if self.heads != "separate":
            return {}
        own = {m.name: head_of(m) for m in self.models}
        if self.base is not None:
            own[self.base.name] = frozenset(r for n, r in self.names[0].items() if n in own[self.donor.name])
        return own

    def _check_names(self, name: str) -> None:
        """Bodies that are stored once for all models have names that fit all of them."""
        for model, names in zip(self.models, self.names[len(self.folders) - len(self.models) :], strict=True):
            if self.own and modern(names[name]) != modern(name):
                raise Refused(
                    f"tensor `{name}` of `{self.donor.name}` is called `{names[name]}` in `{model.name}`",
                    where="--heads separate",
                    fix="keep heads separate of models of one architecture, which can share the files of their body",
                )

    def _account_for_the_rest(self, taken: Collection[tuple[str, str]]) -> None:
        """Tensors that are not in the result: copies, whole numbers, rows of other labels and the base's own; of any
        other it stops.

        taken: (model, tensor) of all that is in it.
        """
        for folder, names in zip(self.folders, self.names, strict=True):
            theirs = {real: name for name, real in names.items()}
            for copy, one in folder.copies.items():
                self.lost[folder.name, copy] = Fate("dropped", f"tied to `{one}`", folder.name)
            for name, entry in folder.tensors.items():
                key = (folder.name, folder.stored.get(name, name))
                mine = name in self.own.get(folder.name, ())
                if key in taken or key in self.lost or (mine and folder is not self.base):
                    continue
                self.lost[key] = Fate("dropped", self._rule(folder, name, entry, theirs.get(name), mine), folder.name)

    def _rule(self, folder: ModelFolder, name: str, entry: Entry, here: str | None, head: bool) -> str:
        """By which a tensor is not in the result. here: its name in the donor; head: whether each model keeps its own.

        Raises `Refused` where there is no such rule.
        """
        if head:
            return "of the base alone: every model keeps its own head"
        fate = self.fates.get(here or "")
        if fate is not None and fate.how == "copied":
            return f"whole numbers: {fate.rule.partition(', ')[2]} alone"
        if fate is not None:
            return "its rows are of other labels"
        dropped = self.lost.get((self.donor.name, self.donor.stored.get(here or "", here or "")))
        if dropped is not None:
            return dropped.rule
        if entry.dtype not in DTYPES.values():
            return f"whole numbers that `{self.donor.name}` has not"
        if folder is self.base:
            return "of the base alone: no fine-tune has it"
        if self.unmatched == "drop":
            return f"`{self.donor.name}` has no such tensor"
        raise Refused(
            f"tensor `{name}` of `{folder.name}` is not in `{self.donor.name}`, and would be lost",
            where=f"merge of {', '.join(f'`{m.name}`' for m in self.models)}",
            fix="merge models of one architecture, or leave it out with --unmatched drop",
        )


def _filled(part: Part | None, having: Sequence[Part]) -> Part | None:
    """Rows that a model lacks are the mean of those who have them."""
    if part is None or part.rows is None:
        return part
    return replace(part, owners=tuple(o for o in having if o is not part))


def _shape(shape: Sequence[int]) -> str:
    return " × ".join(str(n) for n in shape) or "one number"


def renamed(plan: Plan, method: str, settings: Mapping[str, Any]) -> Plan:
    """The plan as one of another method, in the rules of its tensors too; what is done with them is the caller's."""
    old = f"`{plan.method}`"
    fates = {
        n: replace(f, rule=f"`{method}`{f.rule.removeprefix(old)}") if f.rule.startswith(old) else f
        for n, f in plan.fates.items()
    }
    return replace(plan, method=method, settings=settings, fates=fates)


def counted(fates: Mapping[Any, Fate]) -> list[tuple[str, str, int]]:
    """(how, rule, tensors), most first."""
    found = Counter((f.how, f"{f.model}: {f.rule}" if f.model else f.rule) for f in fates.values())
    return [(how, rule, n) for (how, rule), n in found.most_common()]
