"""Tokenizers of several models as one tokenizer.json: the first one's, and the tokens that only others have."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headstart.core import Refused

from .vocabularies import SETTINGS, WHOLE, Vocabulary

BY_ID = ("WordLevel", "WordPiece", "BPE")  # their files give every token its id; of Unigram it is the place in a list
OWN = ("vocab", "merges")  # what two models of one kind of tokenizer differ in
CUTS = ("normalizer", "pre_tokenizer", "decoder")
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass(frozen=True, slots=True)
class Joined:
    """texts: of files, by name. ordinary: model -> how many of its tokens are pieces of words."""

    texts: Mapping[str, str]
    ordinary: Mapping[str, int]
    kind: str


def joined(first: Vocabulary, others: Sequence[Vocabulary], ids: Mapping[str, int]) -> Joined:
    """ids: of all tokens of the result, the first one's as they are in its files.

    Tokens that are found in text as they stand (such as `<|user|>`) are added as that. Pieces of words need tokenizers
    that cut words in one way: they join the vocabulary, and merges of byte pairs come after the first one's.

    Raises `Refused` where the tokenizers are of kinds that cannot be one.
    """
    said = first.json(WHOLE)
    if not said:
        raise _refused(f"`{first.model}` has no {WHOLE}")
    model, added = said["model"], said.get("added_tokens")
    kind = str(model.get("type"))
    ordinary: dict[str, int] = {}
    placed = set(first.tokens)
    new: list[dict[str, Any]] = []
    for other in others:
        mine = [t for t in other.tokens if t in ids and t not in placed]
        placed.update(mine)
        new += [_entry(other.added[t], ids[t]) for t in mine if t in other.added]
        pieces = [t for t in mine if t not in other.added]
        if pieces:
            ordinary[other.model] = len(pieces)
            _check_alike(first, other, pieces[0])
            if kind == "BPE":
                model["merges"] = _merges(model, other, ids)
    new.sort(key=lambda t: int(t["id"]))
    said["added_tokens"] = [*(added if isinstance(added, list) else []), *new]
    if ordinary:  # all, for the ids of added tokens are counted from those of the others where they are not here
        model["vocab"] = dict(ids)
    text = json.dumps(said, ensure_ascii=False, indent=2)
    _check(text, ids, first.model)
    return Joined({WHOLE: text, **_settings(first, new)}, ordinary, kind)


def _entry(token: Mapping[str, Any], number: int) -> dict[str, Any]:
    return {"id": number, "content": token["content"], **{flag: bool(token.get(flag)) for flag in FLAGS}}


def _check_alike(first: Vocabulary, other: Vocabulary, piece: str) -> None:
    """Pieces of words mean the same in both tokenizers."""
    mine, theirs = first.json(WHOLE), other.json(WHOLE)
    whose = f"`{piece}` and other pieces of words of `{other.model}`"
    if not theirs:
        raise _refused(f"`{other.model}` has no {WHOLE}, which says how it cuts words")
    kinds = [str(t["model"].get("type")) for t in (mine, theirs)]
    if kinds[0] != kinds[1] or kinds[0] not in BY_ID:
        raise _refused(f"{whose} cannot join `{first.model}`: the tokenizers are {kinds[1]} and {kinds[0]}")
    for key in sorted({*mine["model"], *theirs["model"]} - {*OWN}):
        if mine["model"].get(key) != theirs["model"].get(key):
            raise _refused(f"{whose} cannot join `{first.model}`: the tokenizers differ in `{key}`")
    for key in CUTS:
        if mine.get(key) != theirs.get(key):
            raise _refused(f"{whose} cannot join `{first.model}`: the tokenizers differ in `{key}`")


def _merges(model: Mapping[str, Any], other: Vocabulary, ids: Mapping[str, int]) -> list[Any]:
    """The model's merges, and those that the other has beside them, in the same way of writing them."""
    mine = list(model.get("merges") or [])
    have = {_pair(m, other) for m in mine}
    as_text = bool(mine) and isinstance(mine[0], str)
    prefix = len(model.get("continuing_subword_prefix") or "")
    for merge in other.json(WHOLE)["model"].get("merges") or []:
        one, two = _pair(merge, other)
        if (one, two) not in have and all(t in ids for t in (one, two, one + two[prefix:])):
            mine.append(f"{one} {two}" if as_text else [one, two])
    return mine


def _pair(merge: Any, model: Vocabulary) -> tuple[str, str]:
    pair = merge.split(" ") if isinstance(merge, str) else merge
    if not isinstance(pair, list) or len(pair) != 2:
        raise _refused(f"the merges of the tokenizer of `{model.model}` are no pairs")
    return str(pair[0]), str(pair[1])


def _settings(first: Vocabulary, new: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Settings that list added tokens list the new ones too."""
    said = first.json(SETTINGS)
    decoder = said.get("added_tokens_decoder")
    if not isinstance(decoder, dict) or not new:
        return {}
    more = {str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in new}
    return {SETTINGS: json.dumps({**said, "added_tokens_decoder": {**decoder, **more}}, ensure_ascii=False, indent=2)}


def _check(text: str, ids: Mapping[str, int], model: str) -> None:
    """The file is read back: every token has its row."""
    from tokenizers import Tokenizer

    try:
        found = Tokenizer.from_str(text).get_vocab(with_added_tokens=True)
    except Exception as error:  # the library raises nothing narrower
        raise _refused(f"the tokenizer of `{model}` cannot be read: {' '.join(str(error).split())[:120]}") from error
    odd = next((t for t in ids if found.get(t) != ids[t]), None)
    if odd is not None or len(found) != len(ids):
        raise _refused(f"`{odd}` cannot have the id {ids.get(odd or '')} in the tokenizer of `{model}`")


def _refused(what: str) -> Refused:
    return Refused(what, where="union of vocabularies", fix="take one model's: --vocabulary first, or base")
