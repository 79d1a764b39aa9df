"""Vocabularies in a merge: how those of the models relate, and where the row of every token lies in each of them.

Rows are matched by the tokens' strings. A row that no token has (one that pads an embedding) is matched by its place
with others of that sort.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from headstart.core import Refused, Unfit

if TYPE_CHECKING:
    import numpy as np

    from headstart.io.model_folders import ModelFolder
    from headstart.io.vocabularies import Vocabulary
    from headstart.numerics.stream import Part

    Array = np.ndarray[Any, Any]

VocabularyRule = Literal["refuse", "union", "base", "first"]
VOCABULARY: tuple[str, ...] = get_args(VocabularyRule)
# the names that input embeddings of words have, and output embeddings with their biases
INPUTS = ("embed_tokens.weight", "word_embeddings.weight", "wte.weight", "embed_in.weight", "shared.weight",
          "tok_embeddings.weight", "word_embedding.weight", "token_embedding.weight", "tokens_embed.weight",
          "embeddings.weight")  # fmt: skip
OUTPUTS = ("lm_head.weight", "lm_head.bias", "lm_head.decoder.weight", "lm_head.decoder.bias", "embed_out.weight",
           "predictions.decoder.weight", "predictions.decoder.bias", "predictions.bias", "vocab_projector.weight",
           "vocab_projector.bias", "generator_lm_head.weight", "generator_lm_head.bias", "lm_loss.weight",
           "lm_loss.bias", "pred_layer.proj.weight", "pred_layer.proj.bias", "final_logits_bias")  # fmt: skip
ALONE = frozenset({"output.weight", "decoder.weight", "decoder.bias"})  # output embeddings where this is all the name
SIZE = "vocab_size"
IDS = ("_token_id", "_token_index")
GENERATION = "generation_config.json"


@dataclass(frozen=True, eq=False, slots=True)
class Changes:
    """What becomes of a folder's configuration and files, so that they fit another vocabulary.

    config: keys that change. texts: files with a text of their own; files: copied from elsewhere; left: of the folder
    that do not go along.
    """

    config: Mapping[str, Any]
    texts: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    left: frozenset[str] = frozenset()


@dataclass(frozen=True, eq=False, slots=True)
class Words:
    """The rows of the result's vocabulary. facts: how the vocabularies relate.

    sizes: by folder, rows of its embeddings. rows: by folder, which of them each row of the result is, -1 for none; a
    folder that is not there has them in place. changes: of a folder's other files, where it gives them to a result.
    """

    facts: Mapping[str, Any]
    sizes: Mapping[Path, int]
    size: int
    rows: Mapping[Path, Array] = field(default_factory=dict)
    changes: Mapping[Path, Changes] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def as_they_are(self) -> bool:
        return not self.rows

    def shape(self, name: str, folder: ModelFolder, shape: Sequence[int]) -> tuple[int, ...] | None:
        """The shape of a tensor in the result, where one of its axes is the vocabulary; None where none is.

        Raises `Refused` where a tensor looks as if it had one.
        """
        size = self.sizes.get(folder.where)
        if of_words(name):
            if shape and shape[0] == size:
                return (self.size, *shape[1:])
            if tuple(shape) == (1, size):
                return (1, self.size)
            if name not in ALONE:
                raise self._odd(name, folder, f"the shape {list(shape)}, and the embedding has {size} rows")
        elif size in shape and size not in set(_numbers(folder.config)):
            raise self._odd(name, folder, f"an axis of {size}, as long as the vocabulary")
        return None

    def _odd(self, name: str, folder: ModelFolder, what: str) -> Refused:
        return Refused(
            f"tensor `{name}` of `{folder.name}` has {what}: which token each row belongs to is not known",
            where="merge of models whose vocabularies differ",
            fix="merge models of one tokenizer",
        )

    def placed(self, part: Part, folder: ModelFolder) -> Part:
        return replace(part, rows=self.rows.get(folder.where))


def of_words(name: str) -> bool:
    """Whether a tensor is called like an embedding of words, or what gives their logits.

    >>> of_words("bert.embeddings.word_embeddings.weight"), of_words("attention.output.weight")
    (True, False)
    """
    return name in ALONE or any(name == known or name.endswith(f".{known}") for known in (*INPUTS, *OUTPUTS))


def is_output(name: str) -> bool:
    """Whether a tensor is an output embedding, which is not stored where it is the input embedding."""
    return name in ALONE - {"decoder.bias"} or (of_words(name) and name.endswith("weight") and not is_input(name))


def is_input(name: str) -> bool:
    return any(name == known or name.endswith(f".{known}") for known in INPUTS)


def related(
    models: Sequence[ModelFolder], base: ModelFolder | None, rule: VocabularyRule, givers: Sequence[ModelFolder]
) -> Words | None:
    """How the vocabularies of a merge relate; None without embeddings of words.

    givers: whose configuration and files a result gets. Raises `Refused` where tokens differ and no rule says whose
    the result has, and where what differs cannot be read.
    """
    owner = base if rule == "base" else models[0]
    if owner is None:
        raise Unfit("the vocabulary is to be the base's, and there is no base", where="--vocabulary", fix="add --base")
    folders = [owner, *(f for f in (*models, *([base] if base else [])) if f is not owner)]
    sizes = {f.where: n for f in folders if (n := rows_of_words(f)) is not None}
    if owner.where not in sizes:
        return None
    folders = [f for f in folders if f.where in sizes]
    from headstart.io.vocabularies import of

    found = {f.where: of(f) for f in folders}
    if _untold(folders, found, sizes):
        return _as_they_are(folders, found, sizes)
    return _Relation(folders, {k: v for k, v in found.items() if v is not None}, sizes, rule, givers).words()


def rows_of_words(folder: ModelFolder) -> int | None:
    """How many rows the embedding of words has; None without one."""
    found = {e.shape[0] for n, e in folder.tensors.items() if is_input(n) and len(e.shape) == 2}
    for config in (folder.config, folder.config.get("text_config")):
        said = config.get(SIZE) if isinstance(config, dict) else None
        if isinstance(said, int) and (said in found or (not found and _has_axis(folder, said))):
            return said
    return max(found, default=None)


def _has_axis(folder: ModelFolder, size: int) -> bool:
    return any(size in e.shape for e in folder.tensors.values())


def _untold(
    folders: Sequence[ModelFolder], found: Mapping[Path, Vocabulary | None], sizes: Mapping[Path, int]
) -> list[ModelFolder]:
    """Folders without tokenizer files, whose rows can only be taken as they are."""
    untold = [f for f in folders if found[f.where] is None]
    other = next((f for f in folders if sizes[f.where] != sizes[folders[0].where]), None)
    if untold and other is not None:
        raise Refused(
            f"their vocabularies differ: `{folders[0].name}` has {sizes[folders[0].where]} rows of words and "
            f"`{other.name}` {sizes[other.where]}, and `{untold[0].name}` has no tokenizer files",
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
    folders: Sequence[ModelFolder], found: Mapping[Path, Vocabulary | None], sizes: Mapping[Path, int]
) -> Words:
    names = ", ".join(f"`{f.name}`" for f in folders if found[f.where] is None)
    size = sizes[folders[0].where]
    said = f"rows of words are taken as they are ({size:,}): no tokenizer files in {names}"
    models = [{"model": f.name, "tokens": None, "rows": size, "lacking": 0, "left_out": 0} for f in folders]
    return Words(_facts("as they are", said, None, size, models), sizes, size, warnings=(said,))


def _facts(rule: str, said: str, tokens: int | None, rows: int, models: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"rule": rule, "said": said, "tokens": tokens, "rows": rows, "models": list(models)}


Key = str | int  # a token, or the place of a row that no token has


class _Relation:
    """Vocabularies that are known. folders: the one whose vocabulary the result has first, or begins with."""

    def __init__(
        self, folders: Sequence[ModelFolder], known: Mapping[Path, Vocabulary], sizes: Mapping[Path, int],
        rule: VocabularyRule, givers: Sequence[ModelFolder],
    ) -> None:  # fmt: skip
        self.folders, self.known, self.sizes, self.rule = folders, known, sizes, rule
        self.givers = [f for f in givers if f.where in sizes]
        self.owner = folders[0]

    def words(self) -> Words:
        size = self.sizes[self.owner.where]
        if len(set(self.sizes.values())) == 1 and _same(list(self.known.values())):
            said = f"the same in all ({size:,} rows)"
            models = [
                {"model": f.name, "tokens": None, "rows": size, "lacking": 0, "left_out": 0} for f in self.folders
            ]
            return Words(_facts("same", said, None, size, models), self.sizes, size)
        sets = [set(self._kept(f)) for f in self.folders]
        differing = next((i for i, s in enumerate(sets) if s != sets[0]), None)
        if differing is not None and self.rule == "refuse":
            raise self._differ(self.folders[differing], sets[0] ^ sets[differing])
        union = self.rule == "union" and differing is not None
        ids = self._united() if union else dict(self._vocabulary(self.owner).tokens)
        return self._aligned(ids, "aligned" if differing is None else self.rule)

    def _vocabulary(self, folder: ModelFolder) -> Vocabulary:
        return self.known[folder.where]

    def _kept(self, folder: ModelFolder) -> dict[str, int]:
        """The tokens that have a row: tokenizers may know some that were given none."""
        return {t: i for t, i in self._vocabulary(folder).tokens.items() if i < self.sizes[folder.where]}

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

    def _aligned(self, ids: Mapping[str, int], rule: str) -> Words:
        import numpy as np

        kept = {f.where: self._kept(f) for f in self.folders}
        last = max((i for t, i in ids.items() if any(t in k for k in kept.values())), default=-1)
        size = max(self.sizes[self.owner.where], last + 1) if rule == "union" else self.sizes[self.owner.where]
        wanted = self._keyed(ids, size)
        if size > self.sizes[self.owner.where]:  # what pads the owner's embedding, and nothing beyond it
            wanted = {k: i for k, i in wanted.items() if isinstance(k, str) or i < self.sizes[self.owner.where]}
        rows, models = {}, []
        for folder in self.folders:
            mine = self._keyed(self._vocabulary(folder).tokens, self.sizes[folder.where])
            found = np.full(size, -1)
            for key, at in wanted.items():
                found[at] = mine.get(key, -1)
            if self.sizes[folder.where] != size or (found != np.arange(size)).any():
                rows[folder.where] = found
            tokens = kept[folder.where]
            models.append(
                {
                    "model": folder.name,
                    "tokens": len(tokens),
                    "rows": self.sizes[folder.where],
                    "lacking": sum(t not in tokens for t, i in ids.items() if i < size),
                    "left_out": sum(t not in ids for t in tokens),
                }
            )
        count = sum(i < size for i in ids.values())
        said = _said(rule, self.owner.name, count, models)
        nobodys = size - int(np.any([rows.get(f.where, np.arange(size)) >= 0 for f in self.folders], axis=0).sum())
        odd = (f"{nobodys:,} rows of the vocabulary are zeros: no model has them",) if nobodys else ()
        made = Words(_facts(rule, said, count, size, models), self.sizes, size, rows, warnings=odd)
        return self._with_changes(made, ids)

    def _with_changes(self, words: Words, ids: Mapping[str, int]) -> Words:
        """What folders that give a result their files need beside rows."""
        from headstart.io.joined_tokenizers import joined

        owned, warnings, texts = self._vocabulary(self.owner), list(words.warnings), None
        if ids.keys() - owned.tokens.keys():
            one = joined(owned, [self._vocabulary(f) for f in self.folders[1:]], ids)
            texts = one.texts
            warnings += [_cut_as(owned.model, model, n, one.kind) for model, n in one.ordinary.items()]
        changes = {f.where: self._changes(f, ids, texts, words.size) for f in self.givers}
        odd = [f"{key} of `{f.name}`" for f in self.givers for key in self._without_token(f, ids)]
        warnings += [f"the result has no token for {said}, which is none now" for said in odd]
        return replace(words, changes=changes, warnings=tuple(warnings))

    def _changes(
        self, folder: ModelFolder, ids: Mapping[str, int], texts: Mapping[str, str] | None, size: int
    ) -> Changes:
        """texts: tokenizer files that no model has, None where they are the owner's."""
        from headstart.io import vocabularies
        from headstart.io.atomic import dumps

        mine, owned = self._vocabulary(folder), self._vocabulary(self.owner)
        place = mine.folder.relative_to(folder.where)
        config = _resized(_renumbered(folder.config, mine.tokens, ids), size)
        changed = {k: v for k, v in config.items() if v != folder.config.get(k)}
        said = _generation(folder)
        generation = _renumbered(said, mine.tokens, ids)
        own = {f"{folder.main}{GENERATION}": dumps(generation)} if generation != said else {}
        if texts is None and owned.tokens == mine.tokens:
            return Changes(changed, own)
        theirs = [n for n in vocabularies.files(self.owner) if texts is None or n.endswith(vocabularies.ALONGSIDE)]
        files = {str(place / Path(n).name): self.owner.where / n for n in theirs}
        new = {str(place / n): text for n, text in (texts or {}).items()}
        return Changes(changed, {**own, **new}, files, frozenset(vocabularies.files(folder)))

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


def _resized(config: Mapping[str, Any], size: int) -> dict[str, Any]:
    """A configuration that says how many rows there are."""
    out = dict(config)
    if SIZE in out:
        out[SIZE] = size
    if isinstance(out.get("text_config"), dict):
        out["text_config"] = _resized(out["text_config"], size)
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


def _numbers(value: Any) -> Iterator[int]:
    """The whole numbers of a configuration, but for those that are about the vocabulary."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key != SIZE:
                yield from _numbers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _numbers(inner)
    elif isinstance(value, int):
        yield value


def filled(parts: Sequence[Part | None], base: Part | None) -> list[Part | None]:
    """Rows that a part lacks are the base's, where it has them, else the mean of those that have them."""
    import numpy as np

    owners: list[Part] = []
    for part in parts:
        if part is None:
            continue
        if base is None or part is base:
            owners.append(part)
        elif base.rows is not None:
            rows = part.rows if part.rows is not None else np.arange(len(base.rows))
            owners.append(replace(part, rows=np.where(base.rows >= 0, -1, rows)))
    return [
        replace(p, owners=tuple(owners)) if p is not None and p.rows is not None and (p.rows < 0).any() else p
        for p in parts
    ]
