"""Whose words the result of a mergekit document speaks: its tokenizer's files and its chat template."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from headstart.combination import recipes
from headstart.core import Refused, Unfit

if TYPE_CHECKING:
    from pathlib import Path

    from headstart.combination.references import Folders
    from headstart.io.model_folders import ModelFolder

TOKENIZER_FILES = re.compile(r"tokenizer|vocab|merges|spiece|sentencepiece|special_tokens|added_tokens|\.model$")


def words(
    document: recipes.Mergekit, folders: Folders, base: ModelFolder | None
) -> tuple[dict[str, Path], dict[str, str]]:
    """Whose tokenizer the result gets, and which chat template."""
    source = document.tokenizer_source
    files: dict[str, Path] = {}
    if source is not None and source != "union":
        owner = base if source == "base" else folders.of(source)
        if owner is None:
            raise Unfit("tokenizer_source is `base`, and there is no base_model", where="recipe", fix="add base_model")
        files = {n: owner.where / n for n in owner.carried if TOKENIZER_FILES.search(n)}
    template = document.chat_template
    if template is None:
        return files, {}
    if template == "auto":
        found = Counter(t for f in folders.all() if (t := _template(f)))
        return files, {"chat_template.jinja": found.most_common(1)[0][0]} if found else {}
    if "{" not in template or len(template) < 20:
        raise Refused(
            f"the chat template `{template}` is not here",
            where="recipe, `chat_template`",
            fix="write the template itself, in Jinja, or `auto`",
        )
    return files, {"chat_template.jinja": template}


def _template(folder: ModelFolder) -> str | None:
    from headstart.io.safe_files import read_json

    beside = folder.where / "chat_template.jinja"
    if "chat_template.jinja" in folder.carried:
        return beside.read_text(encoding="utf-8")
    said = read_json(folder.where, "tokenizer_config.json").get("chat_template")
    return said if isinstance(said, str) else None
