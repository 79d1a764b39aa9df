"""Vocabularies of several models as one: what relates them, which tokens the result has, and which files it needs.

Rows are matched by the tokens' strings. A row that no token has (one that pads an embedding) is matched by its place
with others of that sort.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.core import Refused, Unfit

from .vocabularies import SIZE, Changes, VocabularyRule, Words, rows_of_words

if TYPE_CHECKING:
    from headstart.io.model_folders import ModelFolder
    from headstart.io.vocabularies import Vocabulary

IDS = ("_token_id", "_token_index")
GENERATION = "generation_config.json"


@dataclass(frozen=True, slots=True)
class Wish:
    """What the row of one token is, as it is for others unless this says more.

    folder: whose row; token, number: which of them, by token or id, else that of the token itself. zero: zeros. force:
    also where a model has a row of its own.
    """

    folder: ModelFolder | None = None
    token: str | None = None
    number: int | None = None
    zero: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of the result's vocabulary. owner: whose it is, or whose it begins with. rule: as it is called.

    prefers: whose rows others lack. exact: the result has no rows but those of tokens, up to a multiple of `multiple`,
    and the owner's files. wishes: by token.
    """

    owner: ModelFolder
    rule: str
    prefers: ModelFolder | None
    exact: bool = False
    wishes: Mapping[str, Wish] = field(default_factory=dict)
    multiple: int = 1


def related(models: Sequence[ModelFolder], base: ModelFolder | None, rule: VocabularyRule) -> Words | None:
    """How the vocabularies of a merge relate; None without embeddings of words. The models' names tell them apart.

    Raises `Refused` where tokens differ and no rule says whose the result has, and where what differs cannot be read.
    """
    owner = base if rule == "base" else models[0]
    if owner is None:
        raise Unfit("the vocabulary is to be the base's, and there is no base", where="--vocabulary", fix="add --base")
    return agreed([*models, *([base] if base is not None else [])], Asked(owner, rule, base))


def agreed(models: Sequence[ModelFolder], asked: Asked) -> Words | None:
    """The same, for what is asked."""
    from headstart.io.vocabularies import of

    folders = [asked.owner, *(f for f in models if f is not asked.owner)]
    sizes = {f.name: n for f in folders if (n := rows_of_words(f)) is not None}
    if asked.owner.name not in sizes:
        return None
    folders = [f for f in folders if f.name in sizes]
    found = {f.name: of(f) for f in folders}
    untold, known = _untold(folders, found, sizes), {k: v for k, v in found.items() if v is not None}
    if untold and (asked.wishes or asked.multiple > 1):
        raise Refused(
            f"`{untold[0].name}` has no tokenizer files, and rows are to be given to tokens",
            where="recipe, `tokenizer`",
            fix="put the tokenizer files of the model into its folder",
        )
    if untold:
        plain = _as_they_are(folders, found, sizes)
        brought = asked.exact and asked.owner.name in known
        return replace(plain, changes={f.name: _owners_files(f, asked.owner) for f in folders} if brought else {})
    return _Relation(folders, known, sizes, asked).words()


def _owners_files(folder: ModelFolder, owner: ModelFolder) -> Changes:
    from headstart.io import vocabularies

    files = {f"{folder.main}{Path(n).name}": owner.where / n for n in vocabularies.files(owner)}
    return Changes({}, files=files, left=frozenset(vocabularies.files(folder)))


def _untold(
    folders: Sequence[ModelFolder], found: Mapping[str, Vocabulary | None], sizes: Mapping[str, int]
) -> list[ModelFolder]:
    """Folders without tokenizer files, whose rows can only be taken as they are."""
    untold = [f for f in folders if found[f.name] is None]
    other = next((f for f in folders if sizes[f.name] != sizes[folders[0].name]), None)
    if untold and other is not None:
        raise Refused(
            f"their vocabularies differ: `{folders[0].name}` has {sizes[folders[0].name]} rows of words and "
            f"`{other.name}` {sizes[other.name]}, and `{untold[0].name}` has no tokenizer files",
            where=f"merge of {', '.join(f'`{f.name}`' for f in folders)}",
            fix="put the tokenizer files of each model into its folder",
        )
    told = [v for v in found.values() if v is not None]
    if untold and not _same(told):
        raise Refused(
            f"`{untold[0].name}` has no tokenizer files, and the tokens of the others differ",
            where=f"merge of {', '.join(f'`{f.name}`' for f in folders)}",
            fix="put the tokenizer files of the model into its folder",
        )
    return untold


def _same(vocabularies: Sequence[Vocabulary]) -> bool:
    """Files that are equal need not be read."""
    return len({v.digest for v in vocabularies}) < 2 or all(v.tokens == vocabularies[0].tokens for v in vocabularies)


def _as_they_are(
    folders: Sequence[ModelFolder], found: Mapping[str, Vocabulary | None], sizes: Mapping[str, int]
) -> Words:
    names = ", ".join(f"`{f.name}`" for f in folders if found[f.name] is None)
    size = sizes[folders[0].name]
    said = f"rows of words are taken as they are ({size:,}): no tokenizer files in {names}"
    models = [{"model": f.name, "tokens": None, "rows": size, "lacking": 0, "left_out": 0} for f in folders]
    return Words(_facts("as they are", said, None, size, models), sizes, size, warnings=(said,))


def _facts(rule: str, said: str, tokens: int | None, rows: int, models: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"rule": rule, "said": said, "tokens": tokens, "rows": rows, "models": list(models)}


Key = str | int  # a token, or the place of a row that no token has


class _Relation:
    """Vocabularies that are known. folders: the one whose vocabulary the result has first, or begins with."""

    def __init__(
        self, folders: Sequence[ModelFolder], known: Mapping[str, Vocabulary], sizes: Mapping[str, int],
        asked: Asked,
    ) -> None:  # fmt: skip
        self.folders, self.known, self.sizes, self.asked = folders, known, sizes, asked
        self.owner = folders[0]

    def words(self) -> Words:
        rule = self.asked.rule
        if not self.asked.exact and len(set(self.sizes.values())) == 1 and _same(list(self.known.values())):
            return self._all_the_same()
        sets = [set(self._kept(f)) for f in self.folders]
        differing = next((i for i, s in enumerate(sets) if s != sets[0]), None)
        if differing is not None and rule == "refuse":
            raise self._differ(self.folders[differing], sets[0] ^ sets[differing])
        union = rule == "union" and differing is not None
        ids = self._united() if union else dict(self._vocabulary(self.owner).tokens)
        for token in self.asked.wishes:
            ids.setdefault(token, max(ids.values(), default=-1) + 1)
        return self._aligned(ids, "aligned" if differing is None and not self.asked.exact else rule)

    def _all_the_same(self) -> Words:
        size = self.sizes[self.owner.name]
        said = f"the same in all ({size:,} rows)"
        models = [{"model": f.name, "tokens": None, "rows": size, "lacking": 0, "left_out": 0} for f in self.folders]
        return Words(_facts("same", said, None, size, models), self.sizes, size)

    def _vocabulary(self, folder: ModelFolder) -> Vocabulary:
        return self.known[folder.name]

    def _kept(self, folder: ModelFolder) -> dict[str, int]:
        """The tokens that have a row: tokenizers may know some that were given none."""
        return {t: i for t, i in self._vocabulary(folder).tokens.items() if i < self.sizes[folder.name]}

    def _keyed(self, tokens: Mapping[str, int], size: int) -> dict[Key, int]:
        """What each row is, by its token or by its place."""
        kept: dict[Key, int] = {t: i for t, i in tokens.items() if i < size}
        held = set(kept.values())
        return kept | {i: i for i in range(size) if i not in held}

    def _united(self) -> dict[str, int]:
        """The owner's ids, and new ones for the tokens of the others in their order."""
        ids = dict(self._vocabulary(self.owner).tokens)
        following = max(ids.values(), default=-1) + 1
        for folder in self.folders[1:]:
            for token in sorted(self._kept(folder), key=self._kept(folder).__getitem__):
                if token not in ids:
                    ids[token], following = following, following + 1
        return ids

    def _size(self, ids: Mapping[str, int], rule: str) -> int:
        """Rows of the result: the owner's, and as many more as a union's tokens need."""
        if self.asked.exact:
            return -(-(max(ids.values(), default=-1) + 1) // self.asked.multiple) * self.asked.multiple
        if rule != "union":
            return self.sizes[self.owner.name]
        kept = set().union(*(self._kept(f) for f in self.folders))
        return max(self.sizes[self.owner.name], max((i for t, i in ids.items() if t in kept), default=-1) + 1)

    def _wanted(self, ids: Mapping[str, int], size: int) -> dict[Key, int]:
        """Rows of the result by what they are: tokens, and what pads the owner's embedding."""
        owned = 0 if self.asked.exact else self.sizes[self.owner.name]
        return {k: i for k, i in self._keyed(ids, size).items() if isinstance(k, str) or i < owned}

    def _aligned(self, ids: Mapping[str, int], rule: str) -> Words:
        import numpy as np

        size = self._size(ids, rule)
        wanted = self._wanted(ids, size)
        rows, has = {}, np.zeros(size, bool)
        for folder in self.folders:
            mine = self._keyed(self._vocabulary(folder).tokens, self.sizes[folder.name])
            found = np.full(size, -1)
            for key, at in wanted.items():
                found[at] = mine.get(key, -1)
            has |= found >= 0
            if self.sizes[folder.name] != size or (found != np.arange(size)).any():
                rows[folder.name] = found
        given = {ids[t]: self._given(t, w) for t, w in self.asked.wishes.items() if w.zero or w.folder is not None}
        forced = frozenset(ids[t] for t, w in self.asked.wishes.items() if w.force)
        last = max(ids.values(), default=-1) + 1
        padded = last if self.asked.exact and last < size else None
        nobodys = int((~has[:padded]).sum()) - sum(not has[i] for i in given)
        models = [self._described(f, ids, size) for f in self.folders]
        count = sum(i < size for i in ids.values())
        made = Words(
            _facts(rule, _said(rule, self.owner.name, count, models), count, size, models), self.sizes, size, rows,
            prefers=self.asked.prefers.name if self.asked.prefers is not None else None, given=given, forced=forced,
            padded=padded,
            warnings=(f"{nobodys:,} rows of the vocabulary are zeros: no model has them",) if nobodys else (),
        )  # fmt: skip
        return self._with_changes(made, ids)

    def _described(self, folder: ModelFolder, ids: Mapping[str, int], size: int) -> dict[str, Any]:
        tokens = self._kept(folder)
        return {
            "model": folder.name,
            "tokens": len(tokens),
            "rows": self.sizes[folder.name],
            "lacking": sum(t not in tokens for t, i in ids.items() if i < size),
            "left_out": sum(t not in ids for t in tokens),
        }

    def _given(self, token: str, wish: Wish) -> tuple[str | None, int]:
        """A row of one folder; zeros without one."""
        if wish.folder is None:
            return None, -1
        tokens = self._kept(wish.folder) if wish.folder.name in self.known else {}
        number = wish.number if wish.number is not None else tokens.get(wish.token or token, -1)
        if not 0 <= number < self.sizes.get(wish.folder.name, 0):
            raise Unfit(
                f"`{wish.folder.name}` has no row for `{wish.token or wish.number or token}`",
                where=f"recipe, token `{token}`",
                fix="name a token that the model has",
            )
        return wish.folder.name, number

    def _with_changes(self, words: Words, ids: Mapping[str, int]) -> Words:
        """What folders that give a result their files need beside rows."""
        from headstart.io.joined_tokenizers import joined

        owned, warnings, texts = self._vocabulary(self.owner), list(words.warnings), None
        if ids.keys() - owned.tokens.keys():
            one = joined(owned, [self._vocabulary(f) for f in self.folders[1:]], ids)
            texts = one.texts
            warnings += [_cut_as(owned.model, model, n, one.kind) for model, n in one.ordinary.items()]
        changes = {f.name: self._changes(f, ids, texts, words.size) for f in self.folders}
        return replace(words, changes=changes, warnings=tuple(warnings))

    def _changes(
        self, folder: ModelFolder, ids: Mapping[str, int], texts: Mapping[str, str] | None, size: int
    ) -> Changes:
        """texts: tokenizer files that no model has, None where they are the owner's."""
        from headstart.io import vocabularies
        from headstart.io.atomic import dumps

        mine, owned = self._vocabulary(folder), self._vocabulary(self.owner)
        place = mine.folder.relative_to(folder.where)
        config = _resized(_renumbered(folder.config, mine.tokens, ids), self.sizes[folder.name], size)
        changed = {k: v for k, v in config.items() if v != folder.config.get(k)}
        said = _generation(folder)
        generation = _renumbered(said, mine.tokens, ids)
        own = {f"{folder.main}{GENERATION}": dumps(generation)} if generation != said else {}
        odd = tuple(
            f"the result has no token for {key} of `{folder.name}`, which is none now"
            for key in self._without_token(folder, ids)
        )
        if texts is None and owned.tokens == mine.tokens and (folder is self.owner or not self.asked.exact):
            return Changes(changed, own, warnings=odd)
        theirs = [n for n in vocabularies.files(self.owner) if texts is None or n.endswith(vocabularies.ALONGSIDE)]
        files = {str(place / Path(n).name): self.owner.where / n for n in theirs}
        new = {str(place / n): text for n, text in (texts or {}).items()}
        return Changes(changed, {**own, **new}, files, frozenset(vocabularies.files(folder)), odd)

    def _without_token(self, folder: ModelFolder, ids: Mapping[str, int]) -> list[str]:
        tokens = {i: t for t, i in self._vocabulary(folder).tokens.items()}
        found = [*_ids_in(folder.config), *_ids_in(_generation(folder))]
        return list(dict.fromkeys(key for key, number in found if number in tokens and tokens[number] not in ids))

    def _differ(self, other: ModelFolder, odd: set[str]) -> Refused:
        token = min(odd, key=lambda t: (len(t), t))
        return Refused(
            f"their vocabularies differ: {len(odd)} tokens are of `{self.owner.name}` or `{other.name}` alone, "
            f"such as `{token}`",
            where=f"merge of {', '.join(f'`{f.name}`' for f in self.folders)}",
            fix="say whose tokens the result has: --vocabulary union, base or first",
        )


def _said(rule: str, owner: str, tokens: int, models: Sequence[Mapping[str, Any]]) -> str:
    if rule == "aligned":
        return f"the same {tokens:,} tokens in all, rows matched by token"
    lacking = [f"`{m['model']}` lacks {m['lacking']:,}" for m in models if m["lacking"]]
    out = [f"{m['left_out']:,} of `{m['model']}` are left out" for m in models if m["left_out"]]
    of = "the union" if rule == "union" else f"those of `{owner}`"
    return "; ".join([f"{of}, {tokens:,} tokens, rows matched by token", *lacking, *out])


def _cut_as(first: str, model: str, tokens: int, kind: str) -> str:
    how = f"the merges of `{first}` come first" if kind == "BPE" else "what was cut into pieces may be whole now"
    return (
        f"text is cut by the tokenizer of `{first}` with {tokens:,} pieces of words of `{model}` beside its own: {how}"
    )


def _resized(config: Mapping[str, Any], old: int, size: int) -> dict[str, Any]:
    """A configuration that says how many rows there are, also for a part of the model that had as many."""
    out = dict(config)
    if SIZE in out:
        out[SIZE] = size
    for key, inner in out.items():
        if isinstance(inner, dict) and inner.get(SIZE, old) == old:
            out[key] = _resized(inner, old, size)
    return out


def _generation(folder: ModelFolder) -> dict[str, Any]:
    from headstart.io.safe_files import read_json

    return read_json(folder.where, f"{folder.main}{GENERATION}")


def _renumbered(config: Mapping[str, Any], old: Mapping[str, int], new: Mapping[str, int]) -> dict[str, Any]:
    """A configuration whose ids of tokens are those of the same tokens in another vocabulary, None for none."""
    tokens = {i: t for t, i in old.items()}

    def one(number: Any) -> Any:
        if isinstance(number, list):
            return [found for n in number if (found := one(n)) is not None]
        if isinstance(number, bool) or not isinstance(number, int) or number not in tokens:
            return number
        return new.get(tokens[number])

    return {
        k: one(v) if k.endswith(IDS) else _renumbered(v, old, new) if isinstance(v, dict) else v
        for k, v in config.items()
    }


def _ids_in(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The keys that name tokens, with each number that they name."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _ids_in(value)
        elif key.endswith(IDS):
            yield from ((key, n) for n in (value if isinstance(value, list) else [value]) if isinstance(n, int))
