"""The pages that nobody writes: one for each method, for the commands, and for the JSON schemas.

A hook of MkDocs. Methods come from the catalogue and their files, commands from the shell, schemas from `schemas/`.
"""

from __future__ import annotations

import ast
import dataclasses
import html
import importlib.util
import json
import re
import tokenize
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import click
import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from headstart import catalogue
from headstart.cli.app import app
from headstart.core import KINDS

HERE = Path(__file__).parent
METHODS, COMMANDS, SCHEMAS = "reference/methods", "reference/commands.md", "<!-- the list of schemas -->"
KIND_TITLES = {
    "recall.sources": "Recall: sources",
    "recall.priors": "Recall: priors",
    "ranking.estimators": "Ranking: estimators",
    "ranking.fusion": "Ranking: fusion of proxies and history",
    "ranking.sets": "Ranking: sets",
    "ranking.divergences": "Ranking: divergences between data sets",
    "ranking.similarity": "Ranking: similarities of tasks",
    "adaptation.baselines": "Adaptation: no-transfer systems",
    "adaptation.routes": "Adaptation: routes",
    "combination.merging": "Combination: merging",
    "combination.weighting": "Combination: merging by weights",
    "combination.trimming": "Combination: merging by trimming",
    "combination.matching": "Combination: merging by what passes show",
    "combination.learning": "Combination: merging by what is learned",
    "combination.loops": "Combination: merging and training in turns",
    "combination.routing": "Combination: merging with parts that stay apart",
    "combination.fusion": "Combination: fusion",
    "evidence.checks": "Evidence: checks",
}
READS = {
    "none": "none: data-free",
    "optional": "unlabelled rows for its router, where there are some; else none",
    "inputs": "unlabelled rows",
    "labels": "labelled rows",
}
HOLDS = {
    "tiles": "tiles: streams, whatever the size of the model and of its tensors",
    "tensors": "whole tensors: streams, one tensor of all models after the other",
    "model": "a whole model or more; `headstart merge --dry-run` tells the bytes",
}
PARTS = ("Shapes:", "Returns:", "State:", "Errors:")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of the methods into the navigation."""
    pages: list[Any] = [f"{METHODS}/index.md"]
    for kind in KINDS:
        own = [{name: address(kind, name)} for name in catalogue.entries(kind)]
        pages.append({KIND_TITLES.get(kind, kind): own})
    _fill(config.nav, "Methods", pages)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    made = {f"{METHODS}/index.md": listing(), COMMANDS: commands()}
    made |= {address(kind, e.name): page(e) for kind in KINDS for e in catalogue.entries(kind).values()}
    for where, text in made.items():
        files.append(File.generated(config, where, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in the list of schemas where a page asks for it."""
    return markdown.replace(SCHEMAS, schemas()) if SCHEMAS in markdown else markdown


def _fill(nav: Any, name: str, pages: list[Any]) -> None:
    for item in nav if isinstance(nav, list) else ():
        for title, inside in item.items() if isinstance(item, dict) else ():
            if title == name:
                item[title] = pages
            _fill(inside, name, pages)


def address(kind: str, name: str) -> str:
    """Where the page of a method lies.

    >>> address("ranking.estimators", "logme")
    'reference/methods/ranking-estimators/logme.md'
    """
    return f"{METHODS}/{kind.replace('.', '-')}/{name.replace(':', '-')}.md"


def listing() -> str:
    """The catalogue as one page."""
    lines = ["# Methods", "", "`headstart methods` prints this list for the version that is installed.", ""]
    for kind, protocol in KINDS.items():
        lines += [f"## {KIND_TITLES.get(kind, kind)}", "", f"Kind `{kind}`, shape `{protocol}`.", ""]
        lines += ["| name | what it does | needs |", "| --- | --- | --- |"]
        for found in catalogue.entries(kind).values():
            link = f"[`{found.name}`]({address(kind, found.name).removeprefix(METHODS + '/')})"
            lines.append(f"| {link} | {_safe(found.summary)} | {', '.join(found.needs.gives) or 'rows only'} |")
        lines.append("")
    return "\n".join(lines)


def page(found: catalogue.Entry) -> str:
    """One method: what it does, where it comes from, what it needs, its settings, what it claims."""
    source = _source(found.module)
    tree = ast.parse(source)
    node = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == found.symbol)
    origin = (ast.get_docstring(tree) or "").partition("\n\n")[2]
    needs = found.needs
    facts = {
        "kind": f"`{found.kind}`",
        "class": f"`{found.module}.{found.symbol}`",
        "needs": ", ".join(needs.gives) or "rows only",
        **_read_and_held(found),
        "tasks": ", ".join(t.replace("_", "-") for t in needs.tasks),
        "inputs": ", ".join(needs.modalities),
        "package": ", ".join(f"`headstart[{extra}]`" for _, extra in needs.extras),
        "cites": _safe(found.cites),
    }
    lines = [f"# {found.name}", "", *_prose(ast.get_docstring(node) or ""), ""]
    lines += ["**Where it comes from.** " + _safe(" ".join(origin.split())), ""] if origin else []
    lines += ["| | |", "| --- | --- |", *(f"| {k} | {v} |" for k, v in facts.items() if v), ""]
    lines += ["## Settings", ""]
    settings = list(_settings(node, source, _defaults(found)))
    if settings:
        lines += ["| name | type | default | |", "| --- | --- | --- | --- |"]
        lines += [f"| `{n}` | `{_cell(t)}` | `{_cell(d)}` | {_safe(c)} |" for n, t, d, c in settings]
    else:
        lines.append("None.")
    lines += ["", "## Laws that it claims", ""]
    lines.append(", ".join(f"`{c}`" for c in found.claims) or "None beyond those of its kind.")
    lines += ["", f"They are functions in `headstart.testing.{found.kind.replace('.', '_')}`.", ""]
    return "\n".join(lines)


def _read_and_held(found: catalogue.Entry) -> dict[str, str]:
    """The data that a method reads; of a merge also its models, its base and its memory."""
    needs = found.needs
    data = "records of past runs" if found.kind in catalogue.OF_RECORDS else READS[found.rows]
    own = "; rows that the sources learned from, where they are given" if needs.own_rows else ""
    if found.holds is None:
        return {"data": data + own}
    models = "any number"
    if needs.most is not None:
        models = str(needs.most) if needs.most == needs.fewest else f"{needs.fewest} to {needs.most}"
    elif needs.fewest > 1:
        models = f"{needs.fewest} or more"
    base = "needed: all models come from it" if needs.same_base else "not needed"
    return {"data": data + own, "models": models, "base": base, "memory": HOLDS[found.holds]}


def _source(module: str) -> str:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).read_text(encoding="utf-8")


def _prose(docstring: str) -> Iterator[str]:
    """The docstring as Markdown: `Shapes:`, `Returns:` and `Errors:` begin paragraphs of their own."""
    for line in docstring.split("\n"):
        start = next((p for p in PARTS if line.startswith(p)), None)
        yield f"\n**{start[:-1]}.**{_safe(line[len(start) :])}" if start else _safe(line)


def _defaults(found: catalogue.Entry) -> dict[str, str]:
    """As the class has them; none where the package of an extra is missing, and the file's own words are shown."""
    if catalogue.missing(found):
        return {}
    return {field.name: repr(field.default) for field in dataclasses.fields(found.load())}


def _settings(node: ast.ClassDef, source: str, defaults: dict[str, str]) -> Iterator[tuple[str, str, str, str]]:
    """Name, type, default, and the comment beside or above."""
    comments = {
        token.start[0]: (token.string.lstrip("# "), token.line.strip().startswith("#"))
        for token in tokenize.generate_tokens(StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    for field in node.body:
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.value is not None:
            beside, above = comments.get(field.end_lineno or 0), comments.get(field.lineno - 1)
            said = beside[0] if beside and not beside[1] else above[0] if above and above[1] else ""
            name = field.target.id
            yield name, ast.unparse(field.annotation), defaults.get(name, ast.unparse(field.value)), said


def _safe(text: str) -> str:
    """Text in which only code spans mean something to Markdown.

    >>> _safe("a * b < c, `x * y`")
    'a \\\\* b &lt; c, `x * y`'
    """
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        p if at % 2 else re.sub(r"([*_|\[\]])", r"\\\1", html.escape(p, False)) for at, p in enumerate(parts)
    )


def _cell(code: str) -> str:
    return code.replace("|", "\\|")


def commands() -> str:
    """Every command with its arguments and options, from the shell itself."""
    lines = [
        "# Commands",
        "",
        "Made from `headstart --help` and the help of each command. `--json` prints one JSON document on stdout;",
        "[JSON for machines](json.md) says what is in it.",
        "",
    ]
    root = typer.main.get_command(app)
    for path, command in _commands(root, "headstart"):
        lines += [f"## {path}", "", _safe((command.help or "").strip()), ""]
        shown = [p for p in command.params if p.name != "help"]
        if shown:
            lines += ["| | | default |", "| --- | --- | --- |", *(_option(p) for p in shown)]
        lines.append("")
    lines += [
        "## Exit codes", "", "| code | when |", "| --- | --- |",
        "| 0 | done, whatever the verdict; a list with at least one success |",
        "| 1 | an error with what happened, where, and how to mend it; `inventory verify`: damage was found |",
        "| 2 | the command was typed wrongly |",
        "| 3 | the budget ended before the verdict, or before all sources were ranked |",
        "| 130 | stopped by Ctrl-C; what was found so far is saved |", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _commands(command: Any, path: str) -> Iterator[tuple[str, click.Command]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path, command
    else:
        for name, one in inner.items():
            yield from _commands(one, f"{path} {name}")


def _option(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        name = parameter.metavar or parameter.name.upper()
    else:
        name = " / ".join([*parameter.opts, *parameter.secondary_opts])
    default = parameter.default
    empty = default is None or default is False or callable(default) or parameter.required
    shown = "needed" if parameter.required else "" if empty else f"`{default}`"
    return f"| `{name}` | {_safe(getattr(parameter, 'help', None) or '')} | {shown} |"


def schemas() -> str:
    """Links to the published schemas, each with its title."""
    lines = []
    for path in sorted((HERE / "schemas").glob("*.json")):
        said = json.loads(path.read_text(encoding="utf-8"))
        title = said.get("description") or said.get("title") or path.stem
        lines.append(f"| [`{path.name}`](../schemas/{path.name}) | {_safe(str(title))} |")
    return "\n".join(["| file | what it describes |", "| --- | --- |", *lines]) if lines else ""
