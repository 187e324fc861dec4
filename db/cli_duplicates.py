"""``db duplicates``: images that are the same."""

from typing import TYPE_CHECKING, Annotated

import typer

from core.cli import JsonOption, console, notice, print_json, printable, read_settings

if TYPE_CHECKING:
    from db.duplicates import Duplicates

app = typer.Typer()

#: Names of one group in a terminal; JSON has more.
MOST_NAMES = 10


@app.command()
def duplicates(
    near: Annotated[
        bool, typer.Option("--near/--exact", help="Nearly the same pictures, or exactly the same bytes.")
    ] = False,
    distance: Annotated[
        int, typer.Option(min=0, max=5, help="With --near: of the 64 bits of two pictures' hashes, so many may differ.")
    ] = 3,
    limit: Annotated[int, typer.Option(min=0, help="At most so many groups; 0 means all.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Find images that are stored under several names, the most numerous first, with their labels.

    Reads the whole table: ten millions take minutes, and with --near 130 bytes of memory each. A chain of pictures that
    each resemble the next is one group; but a hash of more than a thousand pictures, mostly flat ones, links no others.

    Examples:
        db duplicates

        db duplicates --near --distance 2 --limit 0 --json > near.jsonl
    """
    from dataclasses import asdict

    from db.duplicates import exact_duplicates, near_duplicates
    from db.engine import open_engine

    engine = open_engine(read_settings())
    at_most = limit or None
    groups = (
        near_duplicates(engine, distance=distance, limit=at_most) if near else exact_duplicates(engine, limit=at_most)
    )
    notice("note: reading every " + ("hash" if near else "digest") + "; ten millions take minutes")
    shown = 0
    for shown, group in enumerate(groups, 1):  # noqa: B007 - the last one counts
        if as_json:
            print_json(asdict(group))
        else:
            _print_group(group)
    if not as_json:
        console().print(f"{shown} groups" + (": perhaps more with --limit" if shown == at_most else ""))


def _print_group(group: "Duplicates") -> None:
    out = console()
    out.print(f"{group.images:,} images, {group.key}", style="bold")
    for copy in group.copies[:MOST_NAMES]:
        labels = ", ".join(f"{model}: {label}" for model, label in copy.verdicts.items())
        out.print(f"  {printable(copy.uri)}  {printable(labels)}", markup=False)
    if group.images > MOST_NAMES:
        out.print(f"  and {group.images - min(MOST_NAMES, len(group.copies)):,} more")
