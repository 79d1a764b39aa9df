"""`headstart delta` and `headstart adapter`: what fine-tunes changed."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Optional

import typer

from .options import Json, Out, Overwrite, help_alone

changes = typer.Typer(rich_markup_mode=None)
low_rank = typer.Typer(rich_markup_mode=None)


class SavedHeads(StrEnum):
    """What becomes of modules that adapters keep whole."""

    SAME = "same"
    AVERAGE = "average"
    SEPARATE = "separate"


class TrimPer(StrEnum):
    """Of what a share is kept."""

    TENSOR = "tensor"
    MODEL = "model"


class ProjectSide(StrEnum):
    """Whose directions a delta is projected on."""

    COLUMNS = "columns"
    ROWS = "rows"


DeltaFile = Annotated[Path, typer.Argument(metavar="DELTA", help="file that `delta diff` wrote")]
DeltaOut = Annotated[Path, typer.Option(metavar="FILE", help="file for the delta, like d.safetensors")]
OverwriteDelta = Annotated[bool, typer.Option("--overwrite", help="replace even the delta that it is made of")]
AdapterFolder = Annotated[Path, typer.Argument(metavar="ADAPTER", help="folder that peft's `save_pretrained` wrote")]


@changes.callback(invoke_without_command=True)
def delta(context: typer.Context) -> None:
    """What a fine-tune changed in its base, as a file of its own."""
    help_alone(context)


@low_rank.callback(invoke_without_command=True)
def adapter(context: typer.Context) -> None:
    """LoRA adapters in peft's folders: merged exactly, and to and from deltas."""
    help_alone(context)


@changes.command("diff")
def delta_diff(
    base: Annotated[str, typer.Argument(metavar="BASE", help="folder of the base")],
    tuned: Annotated[str, typer.Argument(metavar="TUNED", help="folder of the fine-tune")],
    out: DeltaOut,
    exact: Annotated[bool, typer.Option("--exact", help="applied, it gives the fine-tune bit for bit")] = False,
    json: Json = False,
) -> None:
    """Take what a fine-tune changed."""
    from headstart.cli import merging
    from headstart.combination.deltas import diff

    merging.delta(diff(base, tuned, out=out, exact=exact, cache=_hashes()), machine=json)


@changes.command("apply")
def delta_apply(
    file: DeltaFile,
    base: Annotated[str, typer.Argument(metavar="BASE", help="folder of the base that it was made from")],
    out: Out,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Make the fine-tune again from its base."""
    from headstart.cli import merging
    from headstart.combination.deltas import apply

    merging.made_folder(apply(file, base, out=out, overwrite=overwrite, cache=_hashes()), machine=json)


@changes.command("revert")
def delta_revert(
    file: DeltaFile,
    tuned: Annotated[str, typer.Argument(metavar="TUNED", help="folder of the fine-tune that it was taken from")],
    out: Out,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Make the base again from its fine-tune."""
    from headstart.cli import merging
    from headstart.combination.deltas import revert

    merging.reverted(revert(file, tuned, out=out, overwrite=overwrite, cache=_hashes()), machine=json)


@changes.command("info")
def delta_info(file: DeltaFile, json: Json = False) -> None:
    """What a delta holds, and of which base it is."""
    from headstart.cli import merging
    from headstart.combination.deltas import described
    from headstart.io.deltas import read

    merging.delta_info(described(read(file), file.stat().st_size), machine=json)


@changes.command("compress")
def delta_compress(
    file: DeltaFile,
    form: Annotated[str, typer.Option(help="sparse:0.05, lowrank:16, onebit, onebit:rows, int8 or int4")],
    out: DeltaOut,
    overwrite: OverwriteDelta = False,
    json: Json = False,
) -> None:
    """Keep less of a delta."""
    from headstart.cli import merging
    from headstart.combination.deltas import compress

    merging.delta(compress(file, form, out=out, overwrite=overwrite), machine=json)


@changes.command("compare")
def delta_compare(first: DeltaFile, second: DeltaFile, json: Json = False) -> None:
    """How alike two deltas of one base are."""
    from headstart.cli import merging
    from headstart.combination.deltas import compare

    merging.likeness(compare(first, second), machine=json)


@changes.command("stack")
def delta_stack(
    files: Annotated[list[Path], typer.Argument(metavar="DELTA...", help="deltas of one base")],
    out: DeltaOut,
    weights: Annotated[
        Optional[str], typer.Option(help="one number a delta: 0.7,0.3; each counts 1 without it")
    ] = None,
    json: Json = False,
) -> None:
    """Add deltas up."""
    from headstart.cli import merging
    from headstart.combination.deltas import stack

    merging.delta(stack(files, _numbers(weights), out=out), machine=json)


@changes.command("scale")
def delta_scale(
    file: DeltaFile,
    by: Annotated[float, typer.Argument(metavar="NUMBER", help="what every change is multiplied by, like 0.5")],
    out: DeltaOut,
    json: Json = False,
) -> None:
    """Multiply a delta."""
    from headstart.cli import merging
    from headstart.combination.deltas import scale

    merging.delta(scale(file, by, out=out), machine=json)


@changes.command("mask")
def delta_mask(
    file: DeltaFile,
    other: Annotated[Path, typer.Argument(metavar="OTHER", help="a delta of the same base")],
    out: DeltaOut,
    outside: Annotated[bool, typer.Option("--outside", help="keep what the other leaves alone")] = False,
    overwrite: OverwriteDelta = False,
    json: Json = False,
) -> None:
    """Keep the changes where another delta has one, too."""
    from headstart.cli import merging
    from headstart.combination.deltas import mask

    merging.delta(mask(file, other, out=out, outside=outside, overwrite=overwrite), machine=json)


@changes.command("trim")
def delta_trim(
    file: DeltaFile,
    density: Annotated[float, typer.Option(help="the share of entries that stay, like 0.2")],
    out: DeltaOut,
    per: Annotated[TrimPer, typer.Option(help="the share is of every tensor, or of all together")] = TrimPer.TENSOR,
    overwrite: OverwriteDelta = False,
    json: Json = False,
) -> None:
    """Keep the largest changes."""
    from headstart.cli import merging
    from headstart.combination.deltas import trim

    merging.delta(trim(file, density, out=out, per=per.value, overwrite=overwrite), machine=json)


@changes.command("project")
def delta_project(
    file: DeltaFile,
    other: Annotated[Path, typer.Argument(metavar="OTHER", help="a delta of the same base")],
    rank: Annotated[int, typer.Option(help="how many of the other's directions")],
    out: DeltaOut,
    side: Annotated[ProjectSide, typer.Option(help="columns are outputs, rows inputs")] = ProjectSide.COLUMNS,
    off: Annotated[bool, typer.Option("--off", help="keep what lies in none of these directions")] = False,
    overwrite: OverwriteDelta = False,
    json: Json = False,
) -> None:
    """Keep the part of a delta that lies in first singular directions of another."""
    from headstart.cli import merging
    from headstart.combination.deltas import project

    merging.delta(project(file, other, rank, out=out, side=side.value, off=off, overwrite=overwrite), machine=json)


@low_rank.command("merge")
def adapter_merge(
    adapters: Annotated[list[Path], typer.Argument(metavar="ADAPTER...", help="folders of adapters of one base")],
    out: Out,
    weights: Annotated[
        Optional[str], typer.Option(help="one number an adapter: 0.7,0.3; their mean without it")
    ] = None,
    rank: Annotated[Optional[int], typer.Option(min=1, help="the nearest adapter of this smaller rank")] = None,
    heads: Annotated[SavedHeads, typer.Option(help="of modules that are kept whole and differ")] = SavedHeads.SAME,
    base: Annotated[
        Optional[str],
        typer.Option(metavar="FOLDER", help="their base, by which changes of modules that are kept whole are weighed"),
    ] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Add adapters up, exactly: the ranks add up, too."""
    from headstart.cli import merging
    from headstart.combination.adapters import merge_adapters

    made = merge_adapters(
        adapters, out=out, weights=_numbers(weights), rank=rank, heads=heads.value, base=base, overwrite=overwrite,
        cache=_hashes(),
    )  # fmt: skip
    merging.merged_adapters(made, machine=json)


@low_rank.command("to-delta")
def adapter_to_delta(
    folder: AdapterFolder,
    base: Annotated[str, typer.Option(metavar="FOLDER", help="the model that it was trained on")],
    out: DeltaOut,
    json: Json = False,
) -> None:
    """What an adapter changes in its base, as a delta."""
    from headstart.cli import merging
    from headstart.combination.adapters import to_delta

    merging.delta(to_delta(folder, base, out=out, cache=_hashes()), machine=json)


@low_rank.command("from-delta")
def adapter_from_delta(
    file: DeltaFile,
    base: Annotated[str, typer.Option(metavar="FOLDER", help="the base of the delta")],
    out: Out,
    rank: Annotated[int, typer.Option(min=1, help="of every matrix")] = 16,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """An adapter that comes nearest to a delta."""
    from headstart.cli import merging
    from headstart.combination.adapters import from_delta

    told = from_delta(file, base, out=out, rank=rank, overwrite=overwrite, cache=_hashes())
    merging.approximated(told, machine=json)


def _hashes() -> Path:
    from headstart.io.places import hash_folder

    return hash_folder()


def _numbers(text: str | None) -> list[float]:
    from math import isfinite

    from headstart.core import Unfit

    wrong = Unfit(f"`{text}` is no list of numbers", where="--weights", fix="write it like --weights 0.7,0.3")
    try:
        found = [float(part) for part in text.split(",")] if text else []
    except ValueError:
        raise wrong from None
    if not all(map(isfinite, found)):
        raise wrong
    return found
