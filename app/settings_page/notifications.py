"""The settings page's section on notifications: where they go, a test, and what became of the last ones."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import Response
from sqlmodel import Session

from app.core.errors import Conflict, Fault, InvalidInput
from app.core.notices.delivery import Outcome, deliver
from app.core.notices.models import Notice, NoticeKind, Shape
from app.core.notices.outbox import list_notices
from app.core.notices.shapes import shape_message
from app.core.notices.webhook import describe_webhook, find_receiver, remove_webhook, set_webhook
from app.core.paths import DataFolder
from app.web.dependencies import FolderDep, SessionDep, SettingsDep, WriteSessionDep
from app.web.templating import redirect, render_region

router = APIRouter(prefix="/settings/notifications", include_in_schema=False)

_KINDS = {
    NoticeKind.FINISHED: "A training, a merge or an export is done",
    NoticeKind.FAILED: "One failed, for instance by NaN or for lack of memory",
    NoticeKind.GUARD: "A step hangs, or the eval loss rises three times in a row",
    NoticeKind.DISK_FULL: "The disk is full, and a job waits",
}
_SHAPES = {Shape.NTFY: "ntfy", Shape.DISCORD: "Discord", Shape.SLACK: "Slack", Shape.JSON: "JSON, for a program"}
_REGION, _PAGE = "settings/_notifications.html", "settings/notifications.html"


@router.get("")
def show_notifications(request: Request, session: SessionDep, folder: FolderDep) -> Response:
    """The section as a page of its own."""
    return render_region(request, _REGION, _PAGE, notifications_context(request, session, folder))


@router.post("")
def set_notifications(
    request: Request,
    session: WriteSessionDep,
    folder: FolderDep,
    settings: SettingsDep,
    url: Annotated[str, Form()] = "",
    shape: Annotated[str, Form()] = Shape.NTFY.value,
    kinds: Annotated[list[str] | None, Form()] = None,
    link_base: Annotated[str, Form()] = "",
) -> Response:
    """Store the receiver; its address is never sent back."""
    typed: dict[str, Any] = {"shape": shape, "kinds": kinds or [], "link_base": link_base}
    try:
        set_webhook(session, folder, settings.notify_hosts, url=url.strip(), **typed)
    except InvalidInput as error:
        context = notifications_context(request, session, folder, typed, error.faults)
        return render_region(request, _REGION, _PAGE, context, 422)
    return redirect(request, request.app.url_path_for("show_notifications"))


@router.post("/test")
def send_test_notification(request: Request, session: SessionDep, folder: FolderDep, settings: SettingsDep) -> Response:
    """Send a message now, and say what came of it."""
    receiver = find_receiver(session, folder)
    if receiver is None:
        raise Conflict("No receiver of notifications is set.", advice="Set one, then send the test.")
    title, text = "Loradeck: a test", "Notifications arrive here."
    notice = Notice(about="test", kind=NoticeKind.FINISHED, title=title, text=text, data={}, created_at=time.time())
    url, payload = shape_message(receiver.url, receiver.shape, notice, receiver.link_base or None)
    try:
        outcome = deliver(url, payload, settings.notify_hosts)
    except InvalidInput as error:
        outcome = Outcome(False, False, f"The receiver's address {error.faults[0].message}")
    context = {**notifications_context(request, session, folder), "outcome": outcome}
    return render_region(request, _REGION, _PAGE, context, 200 if outcome.delivered else 422)


@router.post("/remove")
def remove_notifications(request: Request, session: WriteSessionDep, folder: FolderDep) -> Response:
    """Forget the receiver."""
    remove_webhook(session, folder)
    return redirect(request, request.app.url_path_for("show_notifications"))


def notifications_context(
    request: Request,
    session: Session,
    folder: DataFolder,
    typed: dict[str, Any] | None = None,
    faults: list[Fault] | None = None,
) -> dict[str, Any]:
    """What the section is rendered from; `typed` goes before what is stored."""
    view = describe_webhook(session, folder)
    stored = {"shape": view.shape.value, "kinds": view.kinds, "link_base": view.link_base or _seen_at(request)}
    faults_by_field: dict[str, list[str]] = {}
    for fault in faults or []:
        told = f"{fault.message}. {fault.advice}" if fault.advice else fault.message
        faults_by_field.setdefault(fault.field, []).append(told)
    return {
        "webhook": view,
        "chosen": typed or stored,
        "notify_errors": faults_by_field,
        "notice_kinds": {kind.value: label for kind, label in _KINDS.items()},
        "shapes": {shape.value: label for shape, label in _SHAPES.items()},
        "notices": list_notices(session),
        "outcome": None,
    }


def _seen_at(request: Request) -> str:
    """Where whoever looks at the page sees the dashboard."""
    return str(request.base_url).rstrip("/")
