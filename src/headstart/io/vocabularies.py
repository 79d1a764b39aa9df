"""Vocabularies: which token each row of an embedding belongs to, as a model's tokenizer files say it.

The files are read as JSON and as lines; no tokenizer is made, and nothing runs.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from headstart.core import Unreadable

from .model_folders import ModelFolder
from .safe_files import inside, read_json

WHOLE = "tokenizer.json"
SETTINGS = "tokenizer_config.json"
ADDED = "added_tokens.json"
LISTS = (WHOLE, "vocab.txt", "vocab.json")
# forms that list no tokens in words, or whose ids follow from code
UNLISTED = re.compile(r"vocab|spiece|sentencepiece|tekken|\.(?:model|spm|tiktoken|codes)$")
FILES = re.compile(UNLISTED.pattern + "|tokenizer|merges|special_tokens|added_tokens")
ALONGSIDE = (SETTINGS, "special_tokens_map.json")  # what beside the lists of tokens goes with any of them
MOST_ID = 1 << 31


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The tokens of one model. folder: where its tokenizer files lie, below root.

    file: which of them lists the tokens. digest: equal where the same tokens have the same files.
    """

    model: str
    root: Path
    folder: Path
    file: str
    digest: str

    @cached_property
    def tokens(self) -> Mapping[str, int]:
        """Token -> id. Raises `Unreadable` where the files do not say it, or not once for each id."""
        if self.file not in LISTS:
            raise Unreadable(
                f"the vocabulary of `{self.model}` cannot be read: `{self.file}` does not list its tokens",
                where=f"`{self.folder}`",
                fix="load its tokenizer with transformers and save it, which writes tokenizer.json",
            )
        found: dict[str, int] = {}
        for token, number in self._said():
            found.setdefault(token, number)
        owners: dict[int, str] = {}
        for token, number in found.items():
            if owners.setdefault(number, token) != token:
                raise self._damaged(f"`{token}` and `{owners[number]}` both have the id {number}")
        return found

    def json(self, name: str) -> dict[str, Any]:
        """A file beside, {} where there is none."""
        return read_json(self.folder, name, root=self.root)

    @cached_property
    def added(self) -> dict[str, dict[str, Any]]:
        """Tokens that are found in text before it is cut, as tokenizer.json or its settings describe them."""
        listed = self.json(WHOLE).get("added_tokens") or []
        decoder = self.json(SETTINGS).get("added_tokens_decoder")
        found = [t for t in listed if isinstance(t, dict)] if isinstance(listed, list) else []
        if isinstance(decoder, dict):
            found += [{"id": number, **t} for number, t in decoder.items() if isinstance(t, dict)]
        out: dict[str, dict[str, Any]] = {}
        for one in found:
            out.setdefault(str(one.get("content")), one)
        return out

    def _said(self) -> Iterator[tuple[str, int]]:
        if self.file == "vocab.txt":
            try:
                lines = inside(self.folder, self.file, root=self.root).read_text(encoding="utf-8").split("\n")
            except (OSError, UnicodeDecodeError) as error:
                raise self._damaged("it is no text in UTF-8") from error
            last = {line.removesuffix("\r"): i for i, line in enumerate(lines) if line or i < len(lines) - 1}
            yield from last.items()  # of a token that is there twice the last counts, as for transformers
        else:
            said = self.json(self.file)
            yield from self._listed(_model(said).get("vocab") if self.file == WHOLE else said)
        for token, one in self.added.items():
            yield token, self._number(one.get("id"))
        yield from self._listed(self.json(ADDED))

    def _listed(self, said: Any) -> Iterator[tuple[str, int]]:
        """A vocabulary by tokens, or as a list of tokens with their scores."""
        if isinstance(said, dict):
            yield from ((str(token), self._number(number)) for token, number in said.items())
        elif isinstance(said, list) and all(isinstance(one, list) and one for one in said):
            yield from ((str(one[0]), i) for i, one in enumerate(said))
        else:
            raise self._damaged("it holds no vocabulary")

    def _number(self, said: Any) -> int:
        if isinstance(said, str) and said.isdecimal() and len(said) < 11:
            said = int(said)
        if isinstance(said, bool) or not isinstance(said, int) or not 0 <= said < MOST_ID:
            raise self._damaged(f"{str(said)[:40]!r} is no id of a token")
        return said

    def _damaged(self, what: str) -> Unreadable:
        return Unreadable(
            f"the vocabulary of `{self.model}` cannot be read: {what}",
            where=f"`{self.folder / self.file}`",
            fix="copy the folder again from its origin",
        )


def _model(said: Mapping[str, Any]) -> Mapping[str, Any]:
    model = said.get("model")
    return model if isinstance(model, dict) else {}


def of(model: ModelFolder) -> Vocabulary | None:
    """The vocabulary of a model, None where the folder has no tokenizer files; tokens are read when asked for."""
    for inner in dict.fromkeys((model.main, "")):
        names = [n.removeprefix(inner) for n in model.carried if n.startswith(inner)]
        plain = [n for n in names if "/" not in n]
        listed = [n for n in LISTS if n in plain] or [n for n in plain if UNLISTED.search(n)]
        if listed:
            place = model.where / inner
            return Vocabulary(model.name, model.where, place, listed[0], _digest(model.where, place, listed[0]))
    return None


def files(model: ModelFolder) -> list[str]:
    """The model's tokenizer files, below its folder."""
    found = [n for n in model.carried if FILES.search(n.rpartition("/")[2])]
    return [n for n in found if n.startswith(model.main) or "/" not in n]


def _digest(root: Path, place: Path, name: str) -> str:
    with inside(place, name, root=root).open("rb") as file:
        whole = hashlib.file_digest(file, "sha256")
    settings = read_json(place, SETTINGS, root=root).get("added_tokens_decoder")
    beside = [name, settings, read_json(place, ADDED, root=root)]
    whole.update(json.dumps(beside, sort_keys=True).encode())
    return whole.hexdigest()
