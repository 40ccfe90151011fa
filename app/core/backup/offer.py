"""What is said where the database is damaged."""

from __future__ import annotations

from pathlib import Path


def offer_restore(database: Path) -> str:
    """What to do about a damaged database file, naming the newest copy that lies beside it."""
    copies = sorted((database.parent / "backups").glob("*.db"), key=lambda path: path.stat().st_mtime)
    newest = f" The last upgrade left one: {copies[-1]}" if copies else ""
    return (
        "Stop dashboard and worker, then run `loradeck restore FILE --force` with a file that `loradeck backup` made."
        f"{newest} What is damaged is kept in set-aside/ in the data folder."
    )
