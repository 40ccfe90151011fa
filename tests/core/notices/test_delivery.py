"""Where a notification may go, and what is known once it was sent: against a real receiver."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from app.core.errors import InvalidInput
from app.core.notices import delivery
from app.core.notices.addresses import AddressRefused, check_address
from app.core.notices.delivery import deliver, read_url
from tests.receiver import Receiver, receive

NAMED = ("127.0.0.1", "localhost")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receive() as receiver:
        yield receiver


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "10.0.0.5",
        "192.168.1.9",
        "172.16.0.1",
        "fd12::1",
        "100.64.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "0.0.0.0",
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "fe80::1",
        "fe80::1%eth0",
        "224.0.0.1",
        "240.0.0.1",
        "::127.0.0.1",
        "::ffff:0:127.0.0.1",
        "fec0::1",
    ],
)
def test_row_41_an_address_that_is_not_public_is_refused_mlflow_cve_2026_64849(address: str) -> None:
    with pytest.raises(AddressRefused):
        check_address("host", address, ())


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses_are_taken(address: str) -> None:
    check_address("host", address, ())


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "192.168.1.9", "fd12::1"])
def test_a_host_that_was_named_may_be_private(address: str) -> None:
    check_address("Box.lan", address, ("box.LAN",))
    with pytest.raises(AddressRefused, match="LORADECK_NOTIFY_HOSTS"):
        check_address("other.lan", address, ("box.lan",))


@pytest.mark.parametrize("address", ["169.254.169.254", "fe80::1", "fd00:ec2::254", "100.100.100.200", "0.0.0.0"])
def test_link_local_and_metadata_addresses_are_refused_even_if_they_are_named(address: str) -> None:
    with pytest.raises(AddressRefused, match="no receiver"):
        check_address("box.lan", address, ("box.lan",))


def test_row_41_refused_at_connect_and_nothing_is_sent(receiver: Receiver) -> None:
    for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "127.1"):
        outcome = deliver(receiver.url.replace("127.0.0.1", host), {}, ())
        assert (outcome.delivered, outcome.again) == (False, False), host
        assert "not a public address" in outcome.message
    assert receiver.bodies == []


def test_row_41_a_name_that_changes_its_mind_is_connected_to_where_it_was_looked_at(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the second answer, a private address, is never asked for."""
    answers = iter(["93.184.216.34", "127.0.0.1"])
    asked: list[str] = []

    def resolve(host: str, port: int, **_more: object) -> list[object]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    connected: list[str] = []

    def connect(self: socket.socket, place: tuple[str, int]) -> None:
        connected.append(place[0])
        raise ConnectionRefusedError(111, "refused")

    monkeypatch.setattr("socket.getaddrinfo", resolve)
    monkeypatch.setattr(socket.socket, "connect", connect)
    outcome = deliver("http://rebind.test:1/", {}, ())
    assert (asked, connected, outcome.again) == (["rebind.test"], ["93.184.216.34"], True)


def test_one_private_address_among_public_ones_refuses_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, 80)) for each in ("93.184.216.34", "10.0.0.1")]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_a, **_k: both)
    assert "10.0.0.1" in deliver("http://two.test/", {}, ()).message


def test_row_41_redirects_are_not_followed(receiver: Receiver) -> None:
    receiver.answers, receiver.location = [302], f"http://127.0.0.1:{receiver.port}/elsewhere"
    outcome = deliver(receiver.url, {"a": 1}, NAMED)
    assert (outcome.delivered, outcome.again) == (False, False)
    assert "redirects are not followed" in outcome.message
    assert receiver.paths == ["/hook/s3cret-t0ken"]


@pytest.mark.parametrize(
    ("answer", "delivered", "again"),
    [
        (200, True, False),
        (204, True, False),
        (404, False, False),
        (403, False, False),
        (429, False, True),
        (503, False, True),
    ],
)
def test_the_answer_decides(receiver: Receiver, answer: int, delivered: bool, again: bool) -> None:
    receiver.answers = [answer]
    outcome = deliver(f"{receiver.url}?key=k", {"title": "ünï"}, NAMED)
    assert (outcome.delivered, outcome.again) == (delivered, again)
    assert str(answer) in outcome.message
    assert "s3cret" not in outcome.message
    assert (receiver.paths, receiver.bodies) == (["/hook/s3cret-t0ken?key=k"], [{"title": "ünï"}])


@pytest.mark.parametrize("answer", ["cut", "hang"])
def test_what_may_have_arrived_is_not_sent_again(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    monkeypatch.setattr(delivery, "_SECONDS", 0.5)
    receiver.answers = [answer]
    outcome = deliver(receiver.url, {}, NAMED)
    assert (outcome.delivered, outcome.again) == (False, False)
    assert "may have arrived" in outcome.message
    assert len(receiver.bodies) == 1


def test_nobody_there_is_tried_again() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        outcome = deliver(f"http://127.0.0.1:{taken.getsockname()[1]}/", {}, NAMED)
    assert (outcome.delivered, outcome.again) == (False, True)
    assert "cannot be reached" in outcome.message


def test_a_receiver_that_does_not_speak_tls_cannot_be_reached(receiver: Receiver) -> None:
    outcome = deliver(receiver.url.replace("http:", "https:"), {}, NAMED)
    assert (outcome.delivered, outcome.again) == (False, True)
    assert receiver.bodies == []


def test_proxies_of_the_environment_are_not_asked(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert deliver(receiver.url, {}, NAMED).delivered


@pytest.mark.parametrize(
    "url",
    ["", "ntfy.sh/x", "ftp://a/b", "http://", "http://user:pw@a/", "http://a:0/", "http://a:99999/", "http://a b/",
     "http://a/\r\nX: 1", "http://[::1", "file:///etc/passwd", "http://ä/"],
)  # fmt: skip
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput):
        read_url(url)
