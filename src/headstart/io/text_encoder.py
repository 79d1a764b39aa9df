"""Texts through their model's own tokenizer and pooling, the same for features and for training.

Rows that are lists of words (`tokens`) have features of each word: the mean over the word's own tokens, in the sentence
that the words make when they are joined by blanks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from headstart.core import Batch, Refused, Unfit

from .kept import Kept
from .modules import depths, finish, load_module, low_rank_sites, unreadable
from .recipes import SEES_PADDING, Recipe

Array = np.ndarray[Any, Any]
Tensors = Mapping[str, torch.Tensor]
CHARACTERS_PER_TOKEN = 20  # first guess; a cut text that gives too few tokens is cut later, up to its whole length
ROWS_AT_ONCE = 1024


@dataclass(frozen=True, eq=False, slots=True)
class Tokens:
    """One row after its tokenizer, with special tokens, at most as long as the model takes.

    words: of a list of words, the word that each token is of, -1 for none; of how many words it is.
    """

    ids: Array
    types: Array | None
    words: Array | None = None
    of: int = 0

    def key(self) -> tuple[int, bytes]:
        return len(self.ids), self.ids.tobytes()


@dataclass(frozen=True, eq=False, slots=True)
class TextBatch:
    """Padded rows: what the model is called with.

    words: (rows, tokens) number of the word among the `of` words of all rows, -1 for none; None for texts.
    """

    tensors: dict[str, torch.Tensor]
    words: torch.Tensor | None = None
    of: int = 0

    def __len__(self) -> int:
        return int(self.tensors["input_ids"].shape[0])


class TextEncoder:
    """A text encoder with its tokenizer, pooling and normalisation; satisfies `core.Encoder`.

    Texts longer than the model takes are truncated to its own length. Very long texts are cut before they are
    tokenized, at 20 characters for each token that fits, and later where that gave too few tokens, so the tokens kept
    are those of the whole text and a million characters cost little.
    """

    def __init__(self, module: nn.Module, tokenizer: Any, recipe: Recipe) -> None:
        self.module, self.tokenizer, self.recipe = module, tokenizer, recipe
        self.width = recipe.width
        self.fingerprint = ""  # of the source's weights, which adapters name; set where the source is known
        self.layers: Sequence[Sequence[str]] = depths(module)
        self.linear_layers: Sequence[str] = low_rank_sites(module)
        self._kept: Kept[list[Tokens]] = Kept(self._tokenized)
        self._prompt_tokens = self._count_prompt() if recipe.prompt and not recipe.pool_prompt else 0

    @classmethod
    def load(cls, recipe: Recipe) -> Self:
        return cls.reading(recipe, load_module(recipe))

    @classmethod
    def reading(cls, recipe: Recipe, module: nn.Module) -> Self:
        """The recipe's tokenizer before another module, such as the whole model with its head."""
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(recipe.model, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError) as error:
            raise unreadable(error, recipe.where) from error
        if recipe.lower:
            _lower(tokenizer)
        return cls(module, tokenizer, recipe)

    def costs(self, inputs: pa.Table) -> Sequence[int]:
        """Tokens of each row."""
        return [len(t.ids) for t in self._kept(inputs)]

    def keys(self, inputs: pa.Table) -> Sequence[tuple[int, bytes]]:
        """Length and content of each row, by which batches are made."""
        return [t.key() for t in self._kept(inputs)]

    def collate(self, inputs: pa.Table, rows: Sequence[int]) -> TextBatch:
        tokens = self._kept(inputs)
        chosen = [tokens[int(r)] for r in rows]
        longest = max((len(t.ids) for t in chosen), default=1)
        padding = self.tokenizer.pad_token_id
        ids = np.full((len(chosen), longest), 0 if padding is None else padding, dtype=np.int64)
        mask = np.zeros((len(chosen), longest), dtype=np.int64)
        types = np.zeros((len(chosen), longest), dtype=np.int64)
        words, of = np.full((len(chosen), longest), -1, dtype=np.int64), 0
        for i, row in enumerate(chosen):
            # whatever the side its tokenizer names: an encoder counts places from the first token, padding included
            place = slice(0, len(row.ids))
            ids[i, place], mask[i, place] = row.ids, 1
            if row.types is not None:
                types[i, place] = row.types
            if row.words is not None:
                words[i, place] = np.where(row.words >= 0, row.words + of, -1)
                of += row.of
        tensors = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        kinds = self.recipe.config.get("type_vocab_size")  # a model that knows one kind of tokens takes all for it
        if "token_type_ids" in self.tokenizer.model_input_names and kinds != 1:
            tensors["token_type_ids"] = torch.from_numpy(types)
        return TextBatch(tensors, torch.from_numpy(words) if "tokens" in inputs.column_names else None, of)

    def forward_features(self, batch: Batch) -> torch.Tensor:
        return self.forward_taps(batch, [self.recipe])[0]

    def forward_taps(self, batch: Batch, recipes: Sequence[Recipe]) -> list[torch.Tensor]:
        """Features by each of these recipes of the same model, from one pass: a row each, or a word each.

        Words are not pooled, and what follows pooling in a sentence-transformers folder is left out of them.
        """
        assert isinstance(batch, TextBatch)  # made by our collate
        states = self._states(batch.tensors, recipes)
        mask = batch.tensors["attention_mask"]
        used, found = self._pooled(mask), []
        for recipe, hidden in zip(recipes, states, strict=True):
            if batch.words is not None:
                found.append(_by_word(hidden, batch.words, batch.of))
                continue
            pooled = torch.cat([_pool(hidden, used, mask, mode) for mode in recipe.pooling], dim=-1)
            found.append(finish(self.module, recipe.after, pooled))
        return found

    def _states(self, tensors: Tensors, recipes: Sequence[Recipe]) -> list[torch.Tensor]:
        """(rows, tokens, width) of the layer of each recipe. Where padding changes what the module says of a row, it is
        shown rows of one length at a time, and padding that it was not shown is 0."""
        deep = {"output_hidden_states": True} if any(r.layer is not None for r in recipes) else {}

        def ask(given: Tensors) -> list[torch.Tensor]:
            out = self.module(**given, return_dict=True, **deep)
            return [out.last_hidden_state if r.layer is None else out.hidden_states[r.layer] for r in recipes]

        if self.recipe.model_type not in SEES_PADDING:
            return ask(tensors)
        length = tensors["attention_mask"].shape[1]
        lengths = tensors["attention_mask"].sum(dim=1)
        parts, order = [], []
        for size in sorted(set(lengths.tolist())):
            rows = torch.nonzero(lengths == size)[:, 0]
            found = ask({name: tensor[rows, :size] for name, tensor in tensors.items()})
            parts.append([nn.functional.pad(one, (0, 0, 0, length - size)) for one in found])
            order.append(rows)
        places = torch.cat(order).argsort()
        return [torch.cat(ones)[places] for ones in zip(*parts, strict=True)]

    def _pooled(self, mask: torch.Tensor) -> torch.Tensor:
        if not self._prompt_tokens:
            return mask
        begin = mask.argmax(dim=1, keepdim=True)
        return mask * (torch.arange(mask.shape[1])[None, :] >= begin + self._prompt_tokens)

    def _count_prompt(self) -> int:
        ids = self.tokenizer(self.recipe.prompt)["input_ids"]
        ends = {self.tokenizer.sep_token_id, self.tokenizer.eos_token_id} - {None}
        return len(ids) - (1 if ids and ids[-1] in ends else 0)

    def _tokenized(self, inputs: pa.Table) -> list[Tokens]:
        if "tokens" in inputs.column_names:
            return self._spelt(inputs["tokens"].to_pylist())
        if "text" not in inputs.column_names:
            raise Unfit(
                f"the rows have no text (columns: {', '.join(inputs.column_names)[:80]})",
                where=f"source `{self.recipe.where}`",
                fix="use an image model for images, and name the text column with --text",
            )
        texts = [self.recipe.prompt + (t or "") for t in inputs["text"].to_pylist()]
        pairs = [t or "" for t in inputs["text_pair"].to_pylist()] if "text_pair" in inputs.column_names else None
        found: list[Tokens] = []
        for at in range(0, len(texts), ROWS_AT_ONCE):
            some = None if pairs is None else pairs[at : at + ROWS_AT_ONCE]
            found.extend(self._some(texts[at : at + ROWS_AT_ONCE], some))
        return found

    def _spelt(self, rows: list[list[str]]) -> list[Tokens]:
        """Lists of words: each as the text that it makes, with the word of each token by its first character."""
        if not self.tokenizer.is_fast:
            raise Refused(
                "its tokenizer does not say which characters a token is of, so words have no features",
                where=f"source `{self.recipe.where}`",
                fix="save the model with a fast tokenizer (`tokenizer.json`)",
            )
        texts, begins = [], []
        for words in rows:
            texts.append(self.recipe.prompt + " ".join(words))
            sizes = np.array([len(w) + 1 for w in words], dtype=np.int64)
            begins.append(len(self.recipe.prompt) + np.cumsum(sizes) - sizes)
        found: list[Tokens] = []
        for at in range(0, len(texts), ROWS_AT_ONCE):
            found.extend(self._some(texts[at : at + ROWS_AT_ONCE], None, begins[at : at + ROWS_AT_ONCE]))
        return found

    def _some(self, texts: list[str], pairs: list[str] | None, begins: Sequence[Array] | None = None) -> list[Tokens]:
        """begins: of lists of words, where in its text each word begins."""
        room = self.recipe.max_length or 512
        bound = room * CHARACTERS_PER_TOKEN
        if self.tokenizer.truncation_side == "left":  # the last tokens are kept, of the whole text
            bound = max(map(len, [*texts, *(pairs or ())]), default=0)
        # what stands for an empty text, where no special tokens do
        nothing = next((n for n in (self.tokenizer.unk_token_id, self.tokenizer.pad_token_id) if n is not None), 0)
        rows: list[Tokens | None] = [None] * len(texts)
        open_rows = list(range(len(texts)))
        while open_rows:
            called = self.tokenizer(
                [texts[i][:bound] for i in open_rows],
                None if pairs is None else [pairs[i][:bound] for i in open_rows],
                truncation="longest_first",
                max_length=room,
                padding=False,
                return_attention_mask=False,
                return_offsets_mapping=begins is not None,
            )
            types = called.get("token_type_ids")
            left = []
            for at, i in enumerate(open_rows):
                cut = len(texts[i]) > bound or (pairs is not None and len(pairs[i]) > bound)
                ids = called["input_ids"][at] or [nothing]
                if cut and len(ids) < room:
                    left.append(i)
                else:
                    kinds, words = None, None
                    if types is not None and pairs is not None:
                        kinds = np.asarray(types[at] or [0], dtype=np.int32)
                    if begins is not None:
                        words = _words(called["offset_mapping"][at] or [(0, 0)], texts[i], begins[i])
                    of = 0 if begins is None else len(begins[i])
                    rows[i] = Tokens(np.asarray(ids, dtype=np.int32), kinds, words, of)
            open_rows, bound = left, bound * 4
        return [r for r in rows if r is not None]


def _words(spans: Sequence[tuple[int, int]], text: str, begins: Array) -> Array:
    """(tokens,) the word that each token is of, from the characters it stands for; -1 for special tokens, the prompt,
    and blanks. A token that begins with the blank before a word is of that word."""
    first = np.array([next((p for p in range(a, b) if not text[p].isspace()), -1) for a, b in spans], dtype=np.int64)
    return np.where(first >= 0, np.searchsorted(begins, first, side="right") - 1, -1)


def _by_word(hidden: torch.Tensor, words: torch.Tensor, of: int) -> torch.Tensor:
    """(of, width) the mean over the tokens of each word; NaN for a word without any: cut off, or of no character that
    the tokenizer knows."""
    inside = words >= 0
    total = torch.zeros((of, hidden.shape[-1]), dtype=torch.float32)
    total.index_add_(0, words[inside], hidden[inside].float())
    return total / torch.bincount(words[inside], minlength=of)[:, None]  # 0 / 0 is NaN


def at_first_tokens(hidden: torch.Tensor, words: torch.Tensor, of: int) -> torch.Tensor:
    """(of, outputs) what is said at the first token of each word, where taggers are trained; NaN as in `_by_word`."""
    inside = words >= 0
    own = words[inside]  # row after row, and those of a word side by side
    first = torch.diff(own, prepend=own.new_full((1,), -1)) != 0
    found = torch.full((of, hidden.shape[-1]), torch.nan, dtype=torch.float32)
    found[own[first]] = hidden[inside][first].float()
    return found


def _pool(hidden: torch.Tensor, mask: torch.Tensor, whole: torch.Tensor, mode: str) -> torch.Tensor:
    """(rows, width) from (rows, tokens, width), as sentence-transformers pools; mask leaves out padding and prompt."""
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    if mode == "cls":
        first = mask.to(torch.int32).argmax(dim=1)
        return hidden[torch.arange(len(hidden)), first]
    if mode == "lasttoken":
        last = mask.shape[1] - 1 - mask.to(torch.int32).flip(1).argmax(dim=1)
        return hidden[torch.arange(len(hidden)), last]
    if mode == "max":
        return hidden.masked_fill(weights == 0, float("-inf")).max(dim=1).values
    if mode == "weightedmean":
        begin = whole.argmax(dim=1, keepdim=True)
        place = torch.arange(1, mask.shape[1] + 1)[None, :] - begin
        weights = weights * place.unsqueeze(-1).to(hidden.dtype)
    total = (hidden * weights).sum(dim=1, dtype=torch.float32)
    count = weights.sum(dim=1, dtype=torch.float32).clamp(min=1e-9)
    return (total / (count.sqrt() if mode == "mean_sqrt_len_tokens" else count)).to(hidden.dtype)


def _lower(tokenizer: Any) -> None:
    """Lower case first, as sentence-transformers' `do_lower_case` does."""
    from tokenizers import normalizers

    backend = tokenizer.backend_tokenizer
    own = backend.normalizer
    parts: list[Any] = (
        [own[i] for i in range(len(own))] if isinstance(own, normalizers.Sequence) else [own] if own is not None else []
    )
    if not any(isinstance(p, normalizers.Lowercase) for p in parts):
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *parts])
