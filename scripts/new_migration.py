"""Draft the next migration from the difference between the tables and a freshly migrated database."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from alembic import command
from alembic.config import Config

from app.core.database import Database
from app.core.paths import bundled


def main() -> None:
    message = sys.argv[1].strip() if len(sys.argv) > 1 else ""
    if not message:
        sys.exit('Say what it does: make migration NAME="add a column"')
    versions = bundled("migrations") / "versions"
    config = Config()
    config.set_main_option("script_location", str(bundled("migrations")))
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{folder}/draft.db")
        database.migrate(Path(folder))
        with database.engine.connect() as connection:
            config.attributes["connection"] = connection
            number = f"{len(list(versions.glob('[0-9]*.py'))) + 1:04d}"
            command.revision(config, message=message, autogenerate=True, rev_id=number)


if __name__ == "__main__":
    main()
