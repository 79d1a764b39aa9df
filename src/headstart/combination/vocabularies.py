"""Which tensors of a merge have rows of words, and where the row of every token of the result lies in each model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from headstart.core import Refused
from headstart.io.tensor_names import ALONE, is_input, of_words

if TYPE_CHECKING:
    import numpy as np

    from headstart.io.model_folders import ModelFolder
    from headstart.numerics.made import Part

    Array = np.ndarray[Any, Any]

VocabularyRule = Literal["refuse", "union", "base", "first"]
VOCABULARY: tuple[str, ...] = get_args(VocabularyRule)
SIZE = "vocab_size"


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
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, slots=True)
class Words:
    """The rows of the result's vocabulary. facts: how the vocabularies relate.

    sizes: by the name of a model, rows of its embeddings. rows: by the same, which of them each row of the result is,
    -1 for none; a model that is not there has them in place. changes: of its other files, if they go to a result.
    prefers: whose row it is where a model lacks one, if it has it. given: rows that are what one model has in a row of
    its own, or zeros, for models that lack them, and for all if they are forced. padded: the first of the rows that are
    a mean of those before, None without any.
    """

    facts: Mapping[str, Any]
    sizes: Mapping[str, int]
    size: int
    rows: Mapping[str, Array] = field(default_factory=dict)
    changes: Mapping[str, Changes] = field(default_factory=dict)
    prefers: str | None = None
    given: Mapping[int, tuple[str | None, int]] = field(default_factory=dict)
    forced: frozenset[int] = frozenset()
    padded: int | None = None
    warnings: tuple[str, ...] = ()

    @property
    def as_they_are(self) -> bool:
        return not self.rows and not self.given and not self.forced

    def warned(self, givers: Sequence[ModelFolder]) -> tuple[str, ...]:
        """Of a result, or several, that have the files of these."""
        mine = [self.changes[f.name].warnings for f in givers if f.name in self.changes]
        return (*self.warnings, *(w for warnings in mine for w in warnings))

    def shape(self, name: str, folder: ModelFolder, shape: Sequence[int]) -> tuple[int, ...] | None:
        """The shape of a tensor in the result, where one of its axes is the vocabulary; None where none is.

        Raises `Refused` where a tensor looks as if it had one.
        """
        size = self.sizes.get(folder.name)
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

    def placed(self, parts: Sequence[Part | None], folders: Sequence[ModelFolder]) -> list[Part | None]:
        """The parts of one tensor with their rows; what one lacks is as `given`, else of the folder that is preferred,
        where it has it, else the mean of those that have it."""
        import numpy as np

        at: dict[str, Part] = {}
        for part, folder in zip(parts, folders, strict=True):
            if part is not None:
                rows = self.rows.get(folder.name)
                at[folder.name] = replace(part, rows=np.arange(self.size) if rows is None else rows)
        owners = [*self._owners(at), *self._givers(at)]
        out: list[Part | None] = []
        for part, folder in zip(parts, folders, strict=True):
            rows = at[folder.name].rows if part is not None else None
            if part is None or rows is None:
                out.append(None)
                continue
            rows = np.where(np.isin(np.arange(self.size), list(self.forced)), -1, rows)
            if folder.name in self.rows or self.forced:
                lacking = bool((rows < 0).any())
                part = replace(part, rows=rows, owners=tuple(owners) if lacking else (), padded=self.padded)
            out.append(part)
        return out

    def _owners(self, at: Mapping[str, Part]) -> list[Part]:
        """Who gives rows that another lacks: in every row the preferred folder alone, or all."""
        import numpy as np

        first = at.get(self.prefers) if self.prefers is not None else None
        out = []
        for part in at.values():
            rows = np.array(part.rows)
            rows[list(self.given)] = -1
            if first is not None and part is not first:
                rows[np.asarray(first.rows) >= 0] = -1
            out.append(replace(part, rows=rows))
        return out

    def _givers(self, at: Mapping[str, Part]) -> list[Part]:
        import numpy as np

        out = []
        for place in dict.fromkeys(p for p, _ in self.given.values() if p is not None):
            if place not in at:
                raise Refused(
                    f"rows are to be taken from `{place}`, which is not merged here",
                    where="recipe, `tokens`",
                    fix="name one of the models that are merged",
                )
            rows = np.full(self.size, -1)
            for row, (whose, number) in self.given.items():
                if whose == place:
                    rows[row] = number
            out.append(replace(at[place], rows=rows))
        return out


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
