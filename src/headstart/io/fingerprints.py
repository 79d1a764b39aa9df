"""Two fingerprints of a source: of its weights alone, and of everything that changes its outputs.

`weights` is a SHA-256 over name-sorted (name, dtype, shape, SHA-256 of the bytes). Names lose the prefix that a bigger
model puts before its encoder, so the same weights are the same however they were sharded or renamed on disk; a matrix
that is stored twice (tied) counts once; index buffers such as `position_ids` are no weights. `identity` adds the
configuration without the keys that change nothing, the tokenizer or preprocessor, and the pooling.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .recipes import IMAGE, TEXT, Recipe
from .safe_files import inside, read_json, write_json
from .safetensors_files import Entry, entries, weight_files
from .shards import Checkpoint

VERSION = 1
CHUNK = 1 << 22
BUFFERS = ("position_ids", "token_type_ids", "num_batches_tracked", "relative_position_index")
# keys of a configuration that do not change what an encoder in float32 puts out
SILENT = frozenset({
    "_name_or_path", "architectures", "transformers_version", "torch_dtype", "dtype", "use_cache", "return_dict",
    "gradient_checkpointing", "output_hidden_states", "output_attentions", "id2label", "label2id", "problem_type",
    "finetuning_task", "num_labels", "_attn_implementation_autoset", "tokenizer_class", "model_max_length",
})  # fmt: skip
SILENT_TOKENIZER = frozenset({"name_or_path", "special_tokens_map_file", "tokenizer_file", "model_max_length"})
VOCABULARIES = ("vocab.txt", "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "spm.model",
                "bpe.codes", "added_tokens.json")  # fmt: skip
FRESH_SECONDS = 2.0  # a file changed as recently as this may change again within the same time stamp


def of_weights(recipe: Recipe, *, own: Mapping[str, Path] | None = None, cache: Path | None = None) -> str:
    """Fingerprint of the tensors of an encoder and its dense layers.

    own: files of a saved member by name: its head, and the adapter that is merged into the encoder.
    """
    named = [(_plain_name(e.name, recipe.prefix), e) for e in recipe.entries]
    for number, step in enumerate(s for s in recipe.after if s.folder is not None):
        assert step.folder is not None  # by the filter above
        found = entries(weight_files(step.folder, root=recipe.where))
        named += [(f"dense.{number}.{e.name}", e) for e in found]
    for part, file in (own or {}).items():
        named += [(f"{part}.{e.name}", e) for e in entries([file])]
    return _told(named, cache)


def of_entries(named: Sequence[tuple[str, Entry]], model_type: str, *, cache: Path | None = None) -> str:
    """The same of any folder's tensors by name; those of a dense layer beside are named `FOLDER/NAME`."""
    prefix = TEXT.get(model_type) or IMAGE.get(model_type, ("",))[0]
    folders = sorted({n.rpartition("/")[0] for n, _ in named if "/" in n})
    plain = []
    for name, entry in named:
        folder, _, rest = name.rpartition("/")
        plain.append((f"dense.{folders.index(folder)}.{rest}" if folder else _plain_name(name, prefix), entry))
    return _told(plain, cache)


def _told(named: Sequence[tuple[str, Entry]], cache: Path | None) -> str:
    digests = _digests([e for _, e in named], cache)
    lines: list[list[Any]] = []
    matrices: set[str] = set()
    for name, entry in sorted(named, key=lambda pair: pair[0]):
        digest = digests[entry.file, entry.name]
        if name.rpartition(".")[2] in BUFFERS:
            continue
        if len(entry.shape) > 1:
            if digest in matrices:
                continue
            matrices.add(digest)
        lines.append([name, entry.dtype, list(entry.shape), digest])
    return _sha(lines)


def of_identity(recipe: Recipe, weights: str) -> str:
    """Fingerprint of the weights and of everything else that changes the features."""
    after = [[a.kind, a.outputs, a.activation] for a in recipe.after]
    config = {k: v for k, v in recipe.config.items() if k not in SILENT and v is not None}
    return _sha(
        {
            "version": VERSION,
            "weights": weights,
            "config": config,
            "preprocessing": _preprocessing(recipe),
            "pooling": [list(recipe.pooling), recipe.pool_prompt, after],
            "text": [recipe.max_length, recipe.lower, recipe.prompt],
        }
    )


def of_file(file: Path, *, cache: Path | None = None) -> str:
    """SHA-256 of one file of weights, told by its header and the digest of each tensor: no byte lies elsewhere.

    cache: as in `of_weights`, so that a file is read once for both. Raises `Unreadable` for a damaged file.
    """
    found = sorted(entries([file]), key=lambda e: (e.start, e.end, e.name))
    digests = _digests(found, cache)
    with file.open("rb") as handle:
        header = handle.read(min((e.start for e in found), default=file.stat().st_size))
    return _sha([hashlib.sha256(header).hexdigest(), *(digests[e.file, e.name] for e in found)])


def _preprocessing(recipe: Recipe) -> dict[str, Any]:
    folder, root = recipe.model, recipe.where
    if recipe.modality == "image":
        return {"backend": "pil", **read_json(folder, "preprocessor_config.json", root=root)}
    settings = read_json(folder, "tokenizer_config.json", root=root)
    found: dict[str, Any] = {
        "settings": {k: v for k, v in settings.items() if k not in SILENT_TOKENIZER},
        "special": read_json(folder, "special_tokens_map.json", root=root),
    }
    whole = read_json(folder, "tokenizer.json", root=root)
    if whole:  # it holds the vocabulary; truncation and padding are set anew at each call
        return found | {"tokenizer": {k: v for k, v in whole.items() if k not in ("truncation", "padding")}}
    for name in VOCABULARIES:
        path = inside(folder, name, root=root)
        if path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _plain_name(name: str, prefix: str) -> str:
    """A tensor's name as the bare encoder has it.

    >>> _plain_name("module.bert.embeddings.LayerNorm.gamma", "bert")
    'embeddings.LayerNorm.weight'
    """
    for outer in ("module.", f"{prefix}."):
        name = name.removeprefix(outer)
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def _digests(found: Sequence[Entry], cache: Path | None) -> dict[tuple[Path, str], str]:
    """SHA-256 of each tensor's bytes, by file and name; a file that has not changed is not read again."""
    by_file: dict[Path, list[Entry]] = {}
    for entry in found:
        by_file.setdefault(entry.file, []).append(entry)
    digests: dict[tuple[Path, str], str] = {}
    for file, tensors in by_file.items():
        known = _known(file, cache)
        if not all(t.name in known for t in tensors):
            known = _read(tensors)
            _keep(file, known, cache)
        digests |= {(file, t.name): known[t.name] for t in tensors}
    return digests


def _read(tensors: Sequence[Entry]) -> dict[str, str]:
    """By tensors side by side: hashing holds no lock, and is what takes the time."""
    with Checkpoint({t.name: t for t in tensors}) as reader:

        def digest(tensor: Entry) -> str:
            sha, size = hashlib.sha256(), tensor.end - tensor.start
            room = memoryview(bytearray(min(CHUNK, size)))
            for start in range(0, size, CHUNK):
                piece = room[: min(CHUNK, size - start)]
                reader.read(tensor.name, start, piece)
                sha.update(piece)
            return sha.hexdigest()

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            largest_first = sorted(tensors, key=lambda t: t.start - t.end)
            found = pool.map(digest, largest_first)
            return {tensor.name: one for tensor, one in zip(largest_first, found, strict=True)}


def _place(file: Path, cache: Path) -> Path:
    return (
        cache
        / "digests"
        / f"{hashlib.sha256(str(file.resolve()).encode(errors='surrogateescape')).hexdigest()[:32]}.json"
    )


def _state(file: Path) -> list[int]:
    stat = file.stat()
    return [VERSION, stat.st_size, stat.st_mtime_ns, stat.st_ino]


def _known(file: Path, cache: Path | None) -> Mapping[str, str]:
    if cache is None:
        return {}
    try:
        kept = json.loads(_place(file, cache).read_text(encoding="utf-8"))
        digests = kept["digests"] if kept["state"] == _state(file) else {}
    except (OSError, ValueError, KeyError, TypeError):  # a cache that cannot be read is an empty one
        return {}
    return digests if isinstance(digests, dict) else {}


def _keep(file: Path, digests: Mapping[str, str], cache: Path | None) -> None:
    if cache is None or time.time() - file.stat().st_mtime < FRESH_SECONDS:
        return
    place = _place(file, cache)
    os.makedirs(place.parent, exist_ok=True)
    write_json({"state": _state(file), "digests": dict(digests)}, place)


def _sha(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
