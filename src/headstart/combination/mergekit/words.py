"""Whose words the result of a mergekit document speaks: its vocabulary and its chat template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from headstart.combination import recipes
from headstart.combination.tokens import Asked, Wish, agreed
from headstart.core import Refused

if TYPE_CHECKING:
    from headstart.combination.references import Folders
    from headstart.combination.vocabularies import Words
    from headstart.io.model_folders import ModelFolder


# the formats that Stanford Alpaca, Qwen, EXAONE 3, Llama 3 and Mistral's first tokenizer were published with
TEMPLATES = {
    "alpaca": """\
{%- set context = messages | selectattr('role', 'equalto', 'user_context') | list -%}
{%- set task = 'Below is an instruction that describes a task' -%}
{%- set more = ', paired with an input that provides further context' if context else '' -%}
{%- if messages[0].role != 'system' -%}
{{ task + more + '. Write a response that appropriately completes the request.\n\n' }}
{%- endif -%}
{%- set heads = {'user': '### Instruction:\n', 'user_context': '### Input:\n', 'assistant': '### Response:\n'} -%}
{%- for message in messages -%}
{{ heads.get(message.role, '') + message.content | trim }}
{%- if message.role == 'assistant' -%}
{{ eos_token }}
{%- endif -%}
{{ '\n\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '### Response:\n' }}
{%- endif -%}
""",
    "chatml": """\
{%- for message in messages -%}
{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\n' }}
{%- endif -%}
""",
    "exaone": """\
{%- if messages[0].role != 'system' -%}
{{ '[|system|][|endofturn|]\n' }}
{%- endif -%}
{%- for message in messages -%}
{{ '[|' + message.role + '|]' + message.content + ('' if message.role == 'user' else '[|endofturn|]') + '\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '[|assistant|]' }}
{%- endif -%}
""",
    "llama3": """\
{{- bos_token -}}
{%- for message in messages -%}
{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' + message.content | trim + '<|eot_id|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif -%}
""",
    "mistral": """\
{{- bos_token -}}
{%- set said = namespace(first='') -%}
{%- for message in messages -%}
{%- if message.role == 'system' and loop.first -%}
{%- set said.first = message.content + '\n\n' -%}
{%- elif message.role == 'user' -%}
{{ ' [INST] ' + said.first + message.content + ' [/INST]' }}
{%- set said.first = '' -%}
{%- elif message.role == 'assistant' -%}
{{ ' ' + message.content + eos_token }}
{%- else -%}
{{ raise_exception('after a system message, roles are user and assistant') }}
{%- endif -%}
{%- endfor -%}
""",
}


def words(document: recipes.Mergekit, folders: Folders, base: ModelFolder | None) -> Words | None:
    """The vocabulary of the result. Without a word about it in the document, tokens must be the same in all models."""
    said = document.tokenizer
    if document.tokenizer_source is not None:
        said = recipes.Tokenizer(source=document.tokenizer_source)
    models = folders.all()
    if said is None:
        return agreed(models, Asked(models[0], "refuse", base))
    wishes = {token: _wish(one, folders) for token, one in (said.tokens or {}).items()}
    owner = _owner(said.source, folders, base)
    rule = said.source if said.source in ("union", "base") else "model"
    if folders.all() != models:
        raise _not_merged(folders.all()[len(models)])
    asked = Asked(owner, str(rule), base, exact=True, wishes=wishes, multiple=said.pad_to_multiple_of or 1)
    return agreed(models, asked)


def _owner(source: recipes.Reference, folders: Folders, base: ModelFolder | None) -> ModelFolder:
    """Without a base_model, the first model named stands in for it."""
    return (base or folders.all()[0]) if source in ("union", "base") else folders.of(source)


def _wish(said: recipes.TokenRow, folders: Folders) -> Wish:
    source = said.source
    if isinstance(source, recipes.Zeros):
        return Wish(zero=True, force=said.force)
    if isinstance(source, recipes.TokenOfModel):
        return Wish(folders.of(source.model), source.token, source.token_id, force=said.force)
    return Wish(folders.of(source) if source is not None else None, force=said.force)


def _not_merged(folder: ModelFolder) -> Refused:
    return Refused(
        f"`{folder.name}` is named for its tokens, and is not among the models",
        where="recipe, `tokenizer`",
        fix="name one of the models that are merged",
    )


def template(document: recipes.Mergekit, models: Sequence[ModelFolder]) -> dict[str, str]:
    """The chat template as a file of the result; none where its tokenizer's own stays."""
    said = document.chat_template
    if said is None:
        return {}
    if said == "auto":
        found = Counter(t for f in models if (t := _template(f)))
        return {"chat_template.jinja": found.most_common(1)[0][0]} if found else {}
    if said in TEMPLATES:
        return {"chat_template.jinja": TEMPLATES[said]}
    if "{" not in said or len(said) < 20:
        raise Refused(
            f"the chat template `{said}` is not here",
            where="recipe, `chat_template`",
            fix=f"use {', '.join(TEMPLATES)}, `auto` for that of most models, or write the template itself, in Jinja",
        )
    return {"chat_template.jinja": said}


def _template(folder: ModelFolder) -> str | None:
    from headstart.io.safe_files import read_json

    beside = folder.where / "chat_template.jinja"
    if "chat_template.jinja" in folder.carried:
        return beside.read_text(encoding="utf-8")
    said = read_json(folder.where, "tokenizer_config.json").get("chat_template")
    return said if isinstance(said, str) else None
