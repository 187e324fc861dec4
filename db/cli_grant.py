"""``db grant``: the least that a role of PostgreSQL needs."""

from typing import Annotated

import typer

from core.cli import console, printable, read_settings

app = typer.Typer()


@app.command()
def grant(
    role: Annotated[str, typer.Argument(help="Of PostgreSQL; it must exist.")],
    duties: Annotated[
        list[str],
        typer.Option("--as", help="producer, worker, reader, reviewer or metrics; may be given several times."),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the SQL.")] = False,
) -> None:
    """Let a role of PostgreSQL do the work of a producer, a worker, a reader ..., and nothing else.

    Run it as the owner of the tables, who also runs `db upgrade`, and once more after an upgrade: what the role was
    granted on these tables before is taken back first. Readers use `db list`, `stats`, `report` and the like, reviewers
    `db review` besides, metrics is for the exporter. `db threshold` and `db prune` are the owner's.

    Examples:
        db grant facesieve_worker --as worker

        db grant everything_at_home --as producer --as worker

        db grant facesieve_reader --as reader --dry-run
    """
    from db.engine import open_engine
    from db.grants import grant as grant_to
    from db.grants import grant_statements

    engine = open_engine(read_settings())
    if dry_run:
        for statement in grant_statements(engine, role, duties):
            console().print(printable(statement), markup=False)
        return
    grant_to(engine, role, duties)
    console().print(f"role {printable(role)} now has the rights of: {', '.join(duties)}", markup=False)
