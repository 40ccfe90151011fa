"""The settings page's notifications: stored without showing the address, tested against a real receiver, removed."""

from __future__ import annotations

from collections.abc import Iterator
from html import unescape

import pytest
from fastapi.testclient import TestClient

from app.core import masking
from app.core.database import Database
from app.core.notices.models import Notice, NoticeKind, NoticeStatus
from app.core.paths import DataFolder
from app.core.settings import Settings
from tests.receiver import Receiver, receive

PATH = "/settings/notifications"
SAME_SITE = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def settings(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(masking, "_known", set())
    monkeypatch.delenv("LORADECK_WEBHOOK_URL", raising=False)
    return settings.model_copy(update={"notify_hosts": ["127.0.0.1"]})


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receive() as receiver:
        yield receiver


def _store(client: TestClient, **fields: object) -> str:
    data = {"shape": "json", "kinds": ["finished", "failed"], "link_base": "http://box.lan:8000", **fields}
    response = client.post(PATH, data=data, headers=SAME_SITE)
    assert response.status_code == (200 if "url" not in fields or "127.0.0.1" in str(fields["url"]) else 422)
    return unescape(response.text)


def test_a_receiver_is_stored_tested_and_removed(client: TestClient, folder: DataFolder, receiver: Receiver) -> None:
    assert "Nobody is told yet." in client.get(PATH).text
    assert 'value="http://127.0.0.1"' in client.get(PATH).text, "where the page was seen is offered for links"
    page = _store(client, url=receiver.url)
    assert "<code>127.0.0.1 …0ken</code>" in page
    assert 'value="guard" checked' not in page
    assert 'value="failed" checked' in page
    path = folder.secrets / "webhook_url"
    assert (path.read_text(), path.stat().st_mode & 0o777) == (receiver.url, 0o600)
    tested = client.post(f"{PATH}/test", headers=SAME_SITE)
    assert "✓ The test was sent" in tested.text
    assert receiver.bodies[0]["title"] == "Loradeck: a test"
    _store(client, shape="discord")  # the address stays
    client.post(f"{PATH}/test", headers=SAME_SITE)
    assert receiver.bodies[1]["allowed_mentions"] == {"parse": []}
    assert "s3cret" not in client.get(PATH).text + client.get("/settings").text + tested.text
    assert "Nobody is told yet." in client.post(f"{PATH}/remove", headers=SAME_SITE).text
    assert not path.exists()
    assert client.post(f"{PATH}/test", headers=SAME_SITE).status_code == 409


def test_a_test_that_fails_says_why(client: TestClient, receiver: Receiver) -> None:
    _store(client, url=receiver.url)
    receiver.answers = [403]
    page = client.post(f"{PATH}/test", headers=SAME_SITE)
    assert page.status_code == 422
    assert "✕ The test was not sent" in page.text
    assert "127.0.0.1 answered 403: said." in page.text


@pytest.mark.parametrize(
    ("fields", "place", "words"),
    [
        ({"url": "http://10.0.0.9/x"}, "url", "LORADECK_NOTIFY_HOSTS='[\"10.0.0.9\"]'"),
        ({"url": "http://169.254.169.254/latest"}, "url", "where no receiver of notifications can be"),
        ({"url": "http://[::ffff:127.0.0.1]/x"}, "url", "is at 127.0.0.1, which is not a public address"),
        ({"url": "javascript:alert(1)"}, "url", "must begin with https:// or http://"),
        ({"url": "https://user:pw@host/x"}, "url", "must not hold a user"),
        ({"url": "https://ntfy.sh", "shape": "ntfy"}, "url", "names no topic"),
        ({"url": "https://ntfy.sh/t", "shape": "irc"}, "shape", "is none of json, ntfy"),
        ({"url": "https://ntfy.sh/t", "kinds": ["party"]}, "kinds", "'party' is none of"),
        ({"url": "https://ntfy.sh/t", "kinds": []}, "kinds", "choose at least one"),
        ({"url": "https://ntfy.sh/t", "link_base": "box"}, "link_base", "must begin with"),
    ],
)
def test_what_cannot_be_is_said_beside_its_field(
    client: TestClient, folder: DataFolder, fields: dict[str, object], place: str, words: str
) -> None:
    data = {"shape": "json", "kinds": ["finished"], "link_base": "", **fields}
    response = client.post(PATH, data=data, headers=SAME_SITE)
    page = unescape(response.text)
    assert response.status_code == 422
    errors = page[page.index(f'id="errors-notify-{place}"') :]
    assert words in errors[: errors.index("</ul>")]
    assert not (folder.secrets / "webhook_url").exists()


def test_the_last_messages_say_what_became_of_them(client: TestClient, database: Database) -> None:
    with database.write() as session:
        for number, (status, error) in enumerate(
            ((NoticeStatus.SENT, None), (NoticeStatus.GIVEN_UP, "ntfy.sh answered 404"), (NoticeStatus.WAITING, None))
        ):
            session.add(
                Notice(about=str(number), kind=NoticeKind.FAILED, title=f"<b>{number}", text="", status=status,
                       error=error, created_at=0.0)
            )  # fmt: skip
    page = client.get(PATH).text
    assert "✓ sent" in page
    assert "✕ given up</span>: ntfy.sh answered 404" in page
    assert "waits for the worker" in page
    assert "&lt;b&gt;1" in page
