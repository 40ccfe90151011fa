"""The newest events, ready for the wire."""

from __future__ import annotations

import json

import pytest

from app.core.events.models import Event
from app.web import recent
from app.web.recent import Frame, Recent


def _frames(first: int, count: int, job_id: int | None = None, size: int = 4) -> list[Frame]:
    return [Frame(number, job_id, b"%04d".ljust(size) % number) for number in range(first, first + count)]


def _all_after(held: Recent, place: int, job_id: int | None = None) -> tuple[bytes, list[int]]:
    """What a stream gets until it has caught up, and the places where it stands between."""
    got, places = b"", [place]
    while places[-1] < held.last:
        chunk, reached = held.after(places[-1], job_id)
        assert reached > places[-1]
        got += chunk
        places.append(reached)
    return got, places[1:]


def test_a_frame_is_one_event_whatever_its_text_holds() -> None:
    event = Event(id=7, job_id=3, kind="log", time=1.5, data={"lines": ["a\n\nevent: x\r\ndata: y"]})
    head, data, number = Frame.of(event).text.decode().removesuffix("\n\n").split("\n")
    assert (head, number) == ("event: log", "id: 7")
    assert json.loads(data.removeprefix("data: ")) == event.to_json()


def test_what_follows_a_place_is_joined_and_reaches_the_end() -> None:
    held = Recent(10)
    assert held.after(10, None) == (b"", 10)
    held.add(_frames(11, 2))
    held.add(_frames(14, 1))
    assert held.after(10, None) == (b"001100120014", 14)
    assert held.after(11, None) == (b"00120014", 14)
    assert held.after(13, None) == (b"0014", 14)
    assert held.after(14, None) == (b"", 14)


def test_a_place_ahead_of_what_was_read_stays() -> None:
    held = Recent(0)
    held.add(_frames(1, 2))
    assert held.after(5, None) == (b"", 5)


def test_a_jobs_stream_passes_over_what_belongs_to_others() -> None:
    held = Recent(0)
    held.add([*_frames(1, 2, 1), *_frames(3, 2, 2), *_frames(5, 1)])
    assert held.after(0, 2) == (b"00030004", 5)
    assert held.after(0, 9) == (b"", 5)
    assert held.after(0, 2) == (b"00030004", 5)


def test_all_streams_at_one_place_share_the_same_bytes() -> None:
    held = Recent(0)
    held.add(_frames(1, 3))
    assert held.after(0, None)[0] is held.after(0, None)[0]
    held.add(_frames(4, 1))
    assert held.after(0, None) == (b"0001000200030004", 4)


def test_a_chunk_ends_once_it_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "CHUNK_BYTES", 10)
    held = Recent(0)
    held.add(_frames(1, 7))
    assert held.after(0, None) == (b"000100020003", 3)
    assert _all_after(held, 0) == (b"0001000200030004000500060007", [3, 6, 7])


def test_old_frames_leave_where_they_take_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "_HELD_BYTES", 100)
    held = Recent(0)
    for first in range(1, 101, 5):
        held.add(_frames(first, 5, size=10))
        assert (held.last - held.floor) * 10 <= 200
        assert _all_after(held, held.floor)[0].split() == [b"%04d" % n for n in range(held.floor + 1, held.last + 1)]
    assert held.floor >= 80


def test_chunks_for_many_places_are_not_kept_for_ever() -> None:
    held = Recent(0)
    held.add(_frames(1, 500))
    for place in range(499):
        assert held.after(place, None)[1] == 500
        assert len(held._chunks) <= 64
