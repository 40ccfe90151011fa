"""A conversation of several turns, as somebody hands it in: [{role, content}]."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from app.core.errors import Fault
from app.core.jobs.sampling import MOST_CHARACTERS

MOST_TURNS = 200
_ROLES = ("system", "user", "assistant")
_ADVICE = "Turns are user, assistant, user, …; one of the system may stand before them, and the last one is the user's."


def turn_faults(messages: Sequence[Any]) -> list[Fault]:
    """What is wrong with it, each fault with the turn's number, from 1."""
    if not messages:
        return [Fault("messages", "holds no turn", _ADVICE)]
    if len(messages) > MOST_TURNS:
        return [Fault("messages", f"holds {len(messages):,} turns, where {MOST_TURNS} are possible")]
    faults = [Fault("messages", f"turn {number}: {what}", _ADVICE) for number, what in _odd_turns(messages)]
    return faults or _order_faults([turn["role"] for turn in messages])


def _odd_turns(messages: Sequence[Any]) -> Iterator[tuple[int, str]]:
    for number, turn in enumerate(messages, start=1):
        if not isinstance(turn, dict) or set(turn) != {"role", "content"}:
            yield number, "is not {role, content}"
        elif turn["role"] not in _ROLES:
            yield number, f"role {turn['role']!r:.40} is not one of {', '.join(_ROLES)}"
        elif not isinstance(turn["content"], str) or not turn["content"].strip():
            yield number, "has no text"
        elif len(turn["content"]) > MOST_CHARACTERS:
            yield number, f"has {len(turn['content']):,} characters, where {MOST_CHARACTERS:,} are possible"


def _order_faults(roles: list[str]) -> list[Fault]:
    talk = roles[1:] if roles[0] == "system" else roles
    for number, role in enumerate(talk, start=1 + len(roles) - len(talk)):
        wanted = "user" if (number - (len(roles) - len(talk))) % 2 else "assistant"
        if role != wanted:
            return [Fault("messages", f"turn {number}: is the {role}'s, where one of the {wanted} is due", _ADVICE)]
    if not talk or talk[-1] != "user":
        return [Fault("messages", "ends with an answer, so nothing is asked" if talk else "asks nothing", _ADVICE)]
    return []
