"""Logging for the processes of Loradeck: one line per record on stderr."""

from __future__ import annotations

import logging


def set_up_logging(level: str) -> None:
    """Send records to stderr, with what `extra` holds under `action`."""
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
