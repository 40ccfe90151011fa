"""`loradeck backup` and `loradeck restore`: they need no running dashboard, and a backup does not mind one.

The database's libraries are imported by these commands alone: others would start half as fast with them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.output import AsJson, print_json
from app.core.paths import DataFolder
from app.core.settings import Settings

app = typer.Typer()


@app.command("backup")
def backup(
    file: Annotated[Path, typer.Argument(help="The backup to write, as backup.zip.")],
    with_files: Annotated[
        bool, typer.Option("--with-files", help="Also what jobs produced, and the files of datasets.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    *,
    json: AsJson = False,
) -> None:
    """Copy the database and files that it names into one file, also while jobs run."""
    from app.core.backup.archive import write_backup
    from app.core.database import Database

    settings = Settings.load()
    database = Database(settings.effective_database_url)
    made = write_backup(database, DataFolder(settings.home), file.absolute(), with_files=with_files, force=force)
    if json:
        print_json(made)
        return
    print(f"{made['path']}: {made['bytes']:,} bytes, sha256 {made['sha256']}")
    print(f"database: {made['database']['bytes']:,} bytes, {sum(made['database']['rows'].values()):,} rows")
    print(f"files: {made['files']['count']}, {made['files']['bytes']:,} bytes")
    for path in made["missing"]:
        print(f"missing: {path}, which the database names")
    for path in made["changed"]:
        print(f"damaged: {path} is not as the database says; it is in the backup as it is")
    for left in made["left_out"]:
        print(f"not in it: {left['what']}{_count(left)}")


def _count(left: dict[str, Any]) -> str:
    return "" if left["count"] is None else f" ({left['count']}, {left['bytes']:,} bytes)"


@app.command("restore")
def restore(
    file: Annotated[Path, typer.Argument(help="A backup, or a copy of the database that an upgrade left.")],
    force: Annotated[
        bool, typer.Option("--force", help="Into a data folder that is not empty; what is replaced is set aside.")
    ] = False,
    *,
    json: AsJson = False,
) -> None:
    """Put a backup back into LORADECK_HOME, verified first. Dashboard and worker must be stopped."""
    from app.core.backup.restore import restore_backup
    from app.core.database import Database

    settings = Settings.load()
    database = Database(settings.effective_database_url)
    restored = restore_backup(database, DataFolder(settings.home), file.absolute(), force=force)
    if json:
        print_json(restored)
        return
    print(f"restored {sum(restored['rows'].values()):,} rows and {restored['files']} files into {settings.home}")
    for kind, names in restored["absent"].items():
        if names:
            print(f"without files: {kind} {', '.join(names)}")
    if restored["set_aside"]:
        print(f"what was replaced: {restored['set_aside']}")
    print("Start it with `loradeck serve`.")
