"""`headstart inventory`: the bank of sources and past runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headstart.cli import show

from .options import (
    Bank,
    Data,
    Image,
    Json,
    Label,
    Labels,
    MetricOption,
    Pair,
    TaskOption,
    Text,
    columns_of,
    help_alone,
    on_shelf,
    target_of,
)

shelf = typer.Typer(rich_markup_mode=None)


@shelf.callback(invoke_without_command=True)
def inventory(context: typer.Context) -> None:
    """The bank of sources and past runs."""
    help_alone(context)


@shelf.command("add")
def inventory_add(
    places: Annotated[list[str], typer.Argument(metavar="PLACE…", help="folders, results, or hub:org/name@revision")],
    bank: Bank = None,
    json: Json = False,
) -> int:
    """Put sources on the shelf.

    A folder that cannot be read is listed, and costs the others nothing.
    """
    from headstart.inventory import Inventory

    inventory = Inventory(bank)
    added, failed = [], []
    for place in places:
        found, broken = inventory.add(place)
        added += found
        failed += broken
    return show.added(added, failed, inventory.where, machine=json)


@shelf.command("map")
def inventory_map(
    models: Annotated[list[str], typer.Argument(metavar="MODEL…", help="ids, names or folders of sources")],
    base: Annotated[str, typer.Option(metavar="BASE", help="id, name or folder of the model that they start from")],
    on: Annotated[str, typer.Option(metavar="ROWS", help="texts or images, without labels; a table or a folder")],
    text: Text = None,
    pair: Pair = None,
    image: Image = None,
    rows: Annotated[int, typer.Option(help="the most rows that are read", min=1)] = 2000,
    bank: Bank = None,
    json: Json = False,
) -> int:
    """Learn what sources would say from what their base says.

    Each map is fitted once and kept in the bank; `rank --maps BASE` then ranks all of them by one pass of the base. A
    source that cannot be mapped is listed with the reason.
    """
    from headstart.inspection import read_unlabelled
    from headstart.inventory import Inventory

    inventory = Inventory(bank)
    (here,) = on_shelf(inventory, [base], one=True)
    sources = [s for s in on_shelf(inventory, models) if s.identity != here.identity]
    found, failed = inventory.map(sources, here, read_unlabelled(on, image=image, **columns_of(text, pair)), most=rows)
    return show.mapped(found, failed, sources, here, inventory.where, machine=json)


@shelf.command("ask")
def inventory_ask(
    models: Annotated[list[str], typer.Argument(metavar="MODEL…", help="ids, names or folders of sources with a head")],
    on: Annotated[str, typer.Option(metavar="PROBES", help="texts or images, the same for all; a table or a folder")],
    text: Text = None,
    pair: Pair = None,
    image: Image = None,
    bank: Bank = None,
    json: Json = False,
) -> int:
    """Ask sources about probes, once, and keep what each decides.

    Which probes a source holds for alike is kept, without the names of its classes; `recall` by `know2vec` reads it. A
    source that cannot answer is listed with the reason.
    """
    from headstart.inspection import read_unlabelled
    from headstart.inventory import Inventory

    inventory = Inventory(bank)
    sources = on_shelf(inventory, models)
    answered, failed = inventory.ask(sources, read_unlabelled(on, image=image, **columns_of(text, pair)))
    return show.asked(answered, failed, sources, inventory.where, machine=json)


@shelf.command("sample")
def inventory_sample(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="id, name or folder of one source")],
    encoder: Annotated[str, typer.Option(metavar="ENCODER", help="id, name or folder of the model that sees the rows")],
    on: Annotated[str, typer.Option(metavar="ROWS", help="texts or images that the source was trained on")],
    text: Text = None,
    pair: Pair = None,
    image: Image = None,
    most: Annotated[int, typer.Option(help="instances that are kept")] = 100,
    centres: Annotated[bool, typer.Option("--centres", help="keep means of clusters in place of single rows")] = False,
    bank: Bank = None,
    json: Json = False,
) -> None:
    """Keep what a source was trained on, as an encoder sees it.

    No row is kept. `rank --experts ENCODER` then finds the sources whose rows are like those of a new target.
    """
    from headstart.inspection import read_unlabelled
    from headstart.inventory import Inventory

    inventory = Inventory(bank)
    (source,), (eyes,) = (on_shelf(inventory, [name], one=True) for name in (model, encoder))
    rows = read_unlabelled(on, image=image, **columns_of(text, pair))
    kept = inventory.sample(source, rows, eyes, most=most, centres=centres)
    what = "centres" if centres else "instances"
    show.made(
        {"source": {"id": source.id, "name": source.name}, "encoder": {"id": eyes.id, "name": eyes.name}, "kept": kept},
        f"saved {kept} {what} of `{source.name}`, as `{eyes.name}` sees them, in {inventory.where}",
        machine=json,
    )


@shelf.command("import")
def inventory_import(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV, TSV, JSONL or parquet, one run a row")],
    bank: Bank = None,
    json: Json = False,
) -> None:
    """Keep records of transfer runs that were made elsewhere.

    All rows are checked first; one that cannot be is named, and nothing is kept. Importing a file again adds nothing.
    """
    from headstart.inventory import Inventory

    inventory = Inventory(bank)
    show.imported(inventory.import_records(file), inventory.where, machine=json)


@shelf.command("list")
def inventory_list(
    records: Annotated[bool, typer.Option("--records", help="what was imported, in place of sources")] = False,
    bank: Bank = None,
    json: Json = False,
) -> None:
    """What is on the shelf."""
    from headstart.inventory import Inventory

    inventory = Inventory(bank)
    if records:
        show.origins(inventory.origins(), inventory.where, machine=json)
        return
    show.sources(inventory.sources(), inventory.where, machine=json)


@shelf.command("show")
def inventory_show(
    wanted: Annotated[str, typer.Argument(metavar="ID", help="id, its beginning, or name")],
    bank: Bank = None,
    json: Json = False,
) -> None:
    """Everything that is known of one source."""
    from headstart.inventory import Inventory

    show.source(Inventory(bank).show(wanted), machine=json)


@shelf.command("verify")
def inventory_verify(bank: Bank = None, json: Json = False) -> int:
    """Read every source again; exit code 1 on damage."""
    from headstart.inventory import Inventory

    inventory = Inventory(bank)
    return show.damage(inventory.verify(), len(inventory.sources()), machine=json)


@shelf.command("remove")
def inventory_remove(
    wanted: Annotated[str, typer.Argument(metavar="ID", help="id, its beginning, or name")],
    bank: Bank = None,
    json: Json = False,
) -> None:
    """Take a source off the shelf; its files and records stay."""
    from headstart.inventory import Inventory

    gone = Inventory(bank).remove(wanted)
    show.made({"removed": {"id": gone.id, "name": gone.name}}, f"removed `{gone.name}` ({gone.id})", machine=json)


@shelf.command("similar")
def inventory_similar(
    data: Data,
    label: Label = None,
    text: Text = None,
    pair: Pair = None,
    image: Image = None,
    metric: MetricOption = None,
    task: TaskOption = None,
    labels: Labels = None,
    bank: Bank = None,
    json: Json = False,
) -> None:
    """Past targets that look like this one, and what worked there.

    Compared by their rows alone, without a model. Figures are of validation rows.
    """
    from headstart.inventory import Inventory

    columns = columns_of(text, pair)
    target = target_of(data, label=label, image=image, metric=metric, task=task, labels=labels, **columns)
    inventory = Inventory(bank)
    show.similar(inventory.similar(target), inventory.where, machine=json)


@shelf.command("convert")
def inventory_convert(
    place: Annotated[Path, typer.Argument(metavar="PATH", help="folder, or a .bin or .pt file of pickled weights")],
    json: Json = False,
) -> None:
    """Turn pickled weights into safetensors.

    A limited worker reads the tensors, and runs no code from the file.
    """
    from headstart.io.convert import convert

    show.converted(convert(place), machine=json)
