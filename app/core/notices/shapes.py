"""A notice as each receiver understands it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit, urlunsplit

from app.core.notices.models import Notice, NoticeKind, Shape

_TAGS = {NoticeKind.FINISHED: "white_check_mark", NoticeKind.FAILED: "x"}
_MARKS = {NoticeKind.FINISHED: "✅", NoticeKind.FAILED: "❌"}
_LONGEST = 1900  # characters; Discord takes 2,000


def shape_message(url: str, shape: Shape, notice: Notice, link: str | None) -> tuple[str, Any]:
    """Where to send what: (url, payload)."""
    if shape is Shape.NTFY:
        return _as_ntfy(url, notice, link)
    return url, {Shape.JSON: _as_json, Shape.DISCORD: _as_discord, Shape.SLACK: _as_slack}[shape](notice, link)


def _as_json(notice: Notice, link: str | None) -> dict[str, Any]:
    return {
        "kind": notice.kind.value,
        "title": notice.title,
        "message": notice.text,
        "job_id": notice.job_id,
        "url": link,
        "time": notice.created_at,
        **notice.data,
    }


def _as_ntfy(url: str, notice: Notice, link: str | None) -> tuple[str, dict[str, Any]]:
    """JSON goes to the server's root, with the topic in it: headers could not hold every name.

    Source: ntfy's documentation, "Publish as JSON".
    """
    parts = urlsplit(url)
    root, _, topic = parts.path.rstrip("/").rpartition("/")
    message: dict[str, Any] = {
        "topic": topic,
        "title": notice.title,
        "message": notice.text,
        "tags": [_TAGS.get(notice.kind, "warning")],
        "priority": 3 if notice.kind is NoticeKind.FINISHED else 4,
    }
    return urlunsplit(parts._replace(path=f"{root}/")), message | ({"click": link} if link else {})


def _as_discord(notice: Notice, link: str | None) -> dict[str, Any]:
    """Nobody is mentioned by a job that is named @everyone."""
    return {"content": _lines(notice, link)[:_LONGEST], "allowed_mentions": {"parse": []}}


def _as_slack(notice: Notice, link: str | None) -> dict[str, Any]:
    """Source: Slack's documentation, "Escaping text"."""
    text = _lines(notice, None).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return {"text": text + (f"\n<{link}>" if link else "")}


def _lines(notice: Notice, link: str | None) -> str:
    head = f"{_MARKS.get(notice.kind, '⚠️')} {notice.title}"
    return "\n".join(filter(None, (head, notice.text, link)))
