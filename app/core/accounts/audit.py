"""The audit log: one row for each change that was asked for and done, and for each login."""

from __future__ import annotations

import time

from sqlmodel import Session, col, delete, select

from app.core.accounts.models import AuditEntry

KEEP_DAYS = 365.0
KEEP_ROWS = 100_000
_LOOK_EVERY = 500  # rows between two prunings


def note(session: Session, actor: str, action: str, subject: str = "", address: str = "") -> None:
    """Add a row; the oldest go when they are older than a year, or more than 100,000."""
    entry = AuditEntry(time=time.time(), actor=actor, action=action, subject=subject[:300], address=address)
    session.add(entry)
    session.flush()
    if entry.key % _LOOK_EVERY == 0:
        _prune(session, entry.key)


def list_entries(session: Session, before: int | None = None, limit: int = 100) -> list[AuditEntry]:
    """The newest first, or those older than row `before`."""
    chosen = select(AuditEntry).order_by(col(AuditEntry.id).desc()).limit(limit)
    return list(session.exec(chosen if before is None else chosen.where(col(AuditEntry.id) < before)))


def _prune(session: Session, newest: int) -> None:
    old = time.time() - KEEP_DAYS * 86400
    session.exec(delete(AuditEntry).where(col(AuditEntry.time) < old))
    session.exec(delete(AuditEntry).where(col(AuditEntry.id) <= newest - KEEP_ROWS))
