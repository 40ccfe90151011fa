"""The receiver of notifications: stored, shown without its address, forgotten."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address

from sqlmodel import Session

from app.core.errors import Fault, InvalidInput, NotFound
from app.core.events.log import latest_id
from app.core.notices.addresses import check_address
from app.core.notices.delivery import read_url
from app.core.notices.models import NoticeKind, Shape, Webhook
from app.core.paths import DataFolder
from app.core.secrets import WEBHOOK_URL, describe_secret, find_secret, remove_secret, set_secret


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where notices go, and how."""

    url: str
    shape: Shape
    link_base: str

    def link(self, job_id: int | None) -> str | None:
        """The job's page, as it is seen from outside."""
        return f"{self.link_base.rstrip('/')}/jobs/{job_id}" if self.link_base and job_id is not None else None


@dataclass(frozen=True, slots=True)
class WebhookView:
    """What may be shown: the host, and the end of the address."""

    shown: str | None
    shape: Shape
    kinds: Sequence[str]
    link_base: str


def set_webhook(
    session: Session,
    folder: DataFolder,
    named: Collection[str],
    *,
    url: str,
    shape: str,
    kinds: Sequence[str],
    link_base: str,
) -> Webhook:
    """Store the receiver; an empty `url` keeps the address. Notices are of what happens from now on.

    Raises: InvalidInput with every fault.
    """
    stored = find_secret(folder, WEBHOOK_URL)
    faults = [*_faults(url or stored or "", shape, kinds, named), *_faults_of_link(link_base)]
    if faults:
        raise InvalidInput(faults)
    if url:
        set_secret(folder, WEBHOOK_URL, url)
    known = session.get(Webhook, 1) or Webhook()
    known.shape, known.kinds, known.link_base = Shape(shape), list(kinds), link_base.strip().rstrip("/")
    known.cursor = latest_id(session)
    session.add(known)
    session.flush()
    return known


def remove_webhook(session: Session, folder: DataFolder) -> None:
    """Forget the receiver; one that the environment names stays."""
    with suppress(NotFound):
        remove_secret(folder, WEBHOOK_URL)
    known = session.get(Webhook, 1)
    if known is not None:
        session.delete(known)


def find_receiver(session: Session, folder: DataFolder) -> Receiver | None:
    """None where no notifications are wanted."""
    known, url = session.get(Webhook, 1), find_secret(folder, WEBHOOK_URL)
    return Receiver(url, known.shape, known.link_base) if known is not None and url else None


def describe_webhook(session: Session, folder: DataFolder) -> WebhookView:
    """As the settings page shows it."""
    known, url = session.get(Webhook, 1), find_secret(folder, WEBHOOK_URL)
    if known is None or not url:
        return WebhookView(None, Shape.NTFY, [kind.value for kind in NoticeKind], "")
    shown = f"{_host(url)} {describe_secret(folder, WEBHOOK_URL).shown}"
    return WebhookView(shown, known.shape, known.kinds, known.link_base)


def _host(url: str) -> str:
    """Also of what was stored over the command line, and is no address."""
    try:
        return str(read_url(url).hostname)
    except InvalidInput:
        return "(not an address)"


def _faults(url: str, shape: str, kinds: Sequence[str], named: Collection[str]) -> list[Fault]:
    faults = []
    try:
        parts = read_url(url)
        with suppress(ValueError):  # a name, which is looked up when something is sent
            check_address(str(parts.hostname), str(ip_address(str(parts.hostname))), named)
        if shape == Shape.NTFY and not parts.path.strip("/"):
            faults.append(Fault("url", "names no topic", "ntfy's address ends with one: https://ntfy.sh/my-topic."))
    except InvalidInput as error:
        faults.extend(error.faults)
    if shape not in set(Shape):
        faults.append(Fault("shape", f"is none of {', '.join(Shape)}"))
    if unknown := [kind for kind in kinds if kind not in set(NoticeKind)]:
        faults.append(Fault("kinds", f"{unknown[0]!r:.40} is none of {', '.join(NoticeKind)}"))
    elif not kinds:
        faults.append(Fault("kinds", "choose at least one"))
    return faults


def _faults_of_link(link_base: str) -> list[Fault]:
    try:
        if link_base.strip():
            read_url(link_base)
    except InvalidInput as error:
        return [Fault("link_base", error.faults[0].message)]
    return []
