"""Notices on their way: made from the event log, claimed, and settled by what came of the sending.

A notice is sent once at most: it is marked as being sent before it is, and tried again only where it cannot have
arrived.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from sqlalchemy import and_, func, or_
from sqlalchemy.dialects.sqlite import insert
from sqlmodel import Session, col, select, update

from app.core.events.log import latest_id
from app.core.events.models import Event
from app.core.events.types import EventKind
from app.core.notices.delivery import Outcome
from app.core.notices.messages import notices_of
from app.core.notices.models import Notice, NoticeStatus, Webhook

PAUSES_SECONDS = (10, 60, 300, 1800, 7200)  # after the first try, the second, …; then it is given up
_TOLD_OF = or_(  # of metrics, which come with every step, the evals alone
    col(Event.kind).in_((EventKind.FINISHED.value, EventKind.STATUS.value)),
    and_(col(Event.kind) == EventKind.METRIC.value, func.json_extract(Event.data, "$.eval_loss").is_not(None)),
)
_LOST = "The worker ended while it was being sent; it may have arrived, so it is not sent again."


def find_news(session: Session, webhook: Webhook, cursor: int) -> tuple[list[Notice], int]:
    """Notices of the events behind `cursor`, of the kinds that are wanted; and the new cursor."""
    newest = latest_id(session)
    if newest <= cursor:
        return [], cursor
    query = select(Event).where(col(Event.id) > cursor, col(Event.id) <= newest, _TOLD_OF)
    found = [notice for event in session.exec(query.order_by(col(Event.id))) for notice in notices_of(session, event)]
    return [notice for notice in found if notice.kind.value in webhook.kinds], newest


def store_news(session: Session, notices: Sequence[Notice], cursor: int) -> None:
    """In one transaction, so that none is lost; one that is there already stays as it is."""
    for notice in notices:
        values = notice.model_dump(exclude={"id"})
        session.execute(insert(Notice).values(**values).on_conflict_do_nothing(index_elements=["about"]))
    session.execute(update(Webhook).values(cursor=cursor))


def find_due(session: Session, now: float) -> Notice | None:
    """The oldest notice whose time has come."""
    waiting = select(Notice).where(Notice.status == NoticeStatus.WAITING, col(Notice.next_try_at) <= now)
    return session.exec(waiting.order_by(col(Notice.id)).limit(1)).first()


def claim(session: Session, notice: Notice) -> bool:
    """Mark it as being sent. False where somebody else has it."""
    moved = session.execute(
        update(Notice)
        .where(col(Notice.id) == notice.id, col(Notice.status) == NoticeStatus.WAITING)
        .values(status=NoticeStatus.SENDING, tries=Notice.tries + 1)
    )
    return bool(moved.rowcount == 1)  # type: ignore[attr-defined]


def settle(session: Session, notice_id: int, outcome: Outcome, now: float | None = None) -> Notice:
    """Put down what came of a try."""
    now = time.time() if now is None else now
    notice = session.get_one(Notice, notice_id)
    notice.error = None if outcome.delivered else outcome.message
    if outcome.delivered:
        notice.status, notice.sent_at = NoticeStatus.SENT, now
    elif outcome.again and notice.tries <= len(PAUSES_SECONDS):
        notice.status, notice.next_try_at = NoticeStatus.WAITING, now + PAUSES_SECONDS[notice.tries - 1]
    else:
        notice.status = NoticeStatus.GIVEN_UP
    session.add(notice)
    return notice


def give_up_lost(session: Session) -> None:
    """What an earlier worker was sending when it ended; nobody knows whether it arrived."""
    session.execute(
        update(Notice)
        .where(col(Notice.status) == NoticeStatus.SENDING)
        .values(status=NoticeStatus.GIVEN_UP, error=_LOST)
    )


def list_notices(session: Session, limit: int = 20) -> Sequence[Notice]:
    """The newest first."""
    return session.exec(select(Notice).order_by(col(Notice.id).desc()).limit(limit)).all()
