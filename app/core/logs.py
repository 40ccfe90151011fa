"""Logging for the processes of Loradeck: one line per record, with secrets masked."""

from __future__ import annotations

import logging
from typing import TextIO

from app.core.masking import MaskingFormatter

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def set_up_logging(level: str, stream: TextIO | None = None) -> None:
    """Send records to `stream`, stderr unless it is given."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(MaskingFormatter(_FORMAT))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for name in ("alembic", "httpx", "httpx2"):  # each step of a migration, each request to the hub
        logging.getLogger(name).setLevel(logging.WARNING)
