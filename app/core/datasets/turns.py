"""Conversations of many turns: the roles they may have, and the order in which those follow each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.core.datasets.calls import with_calls
from app.core.datasets.faults import RowFault
from app.core.datasets.report import ProblemKind

Messages = list[dict[str, str]]
ROLES = ("system", "user", "assistant", "tool")  # not every chat template takes "tool": training names the row then
UNLEARNED = {"weight": "0"}  # beside role and content of an answer that is shown and not learned

START = ""
_MAY_FOLLOW = {
    START: ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("tool", "assistant"),
}
_ROLE_OF_NAME = {**{role: role for role in ROLES}, "developer": "system"}
_REASONING = ("reasoning_content", "reasoning", "thinking")  # by which an answer's reasoning stands beside it
_ROLE_OF_SPEAKER = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "tool": "tool",
}


def read_messages(row: Mapping[str, Any]) -> Messages:
    """`messages`: a list of {role, content, tool_calls?, reasoning_content?, weight?}. Raises: RowFault."""
    turns = _list(row.get("messages"), "messages", "{role, content}")
    messages = [_message(turn, f"messages[{index}]") for index, turn in enumerate(turns)]
    check_order(messages, "messages")
    return _with_answer(messages, "messages")


def read_conversations(row: Mapping[str, Any]) -> Messages:
    """`conversations`: a list of {from, value}; the field `system` opens it where there is one. Raises: RowFault.

    Published files cut long conversations, so that many parts begin with an answer. What stands before the first user's
    turn, but for the system's, is left out.
    """
    turns = _list(row.get("conversations"), "conversations", "{from, value}")
    messages = [_spoken(turn, f"conversations[{index}]") for index, turn in enumerate(turns)]
    system = opening(row)
    check_order(messages, "conversations", before="system" if system else START, is_cut=True)
    asked = next((index for index, message in enumerate(messages) if message["role"] == "user"), len(messages))
    kept = [message for message in messages[:asked] if message["role"] == "system"] + messages[asked:]
    return system + _with_answer(kept, "conversations")


def opens_with_answer(row: Mapping[str, Any]) -> bool:
    """Whether `read_conversations` left turns out of the row that it has read."""
    roles = [_ROLE_OF_SPEAKER[turn["from"]] for turn in row["conversations"][:2]]
    return roles[0] == "assistant" or roles == ["system", "assistant"]


def read_turns(value: Any, field: str) -> Messages:
    """Turns in either spelling, in any order. Raises: RowFault."""
    turns = _list(value, field, "{role, content} or of {from, value}")
    return [read_turn(turn, f"{field}[{index}]") for index, turn in enumerate(turns)]


def read_turn(turn: Any, place: str) -> dict[str, str]:
    """One turn, {role, content} or {from, value}. Raises: RowFault."""
    is_spoken = isinstance(turn, Mapping) and turn.get("role") is None and turn.get("from") is not None
    return _spoken(turn, place) if is_spoken else _message(turn, place)


def opening(row: Mapping[str, Any]) -> Messages:
    """The field `system` as a message, or nothing. Raises: RowFault."""
    system = row.get("system")
    if system is not None and not isinstance(system, str):
        raise RowFault("system", f"is not a text but {type(system).__name__}", ProblemKind.WRONG_TYPE)
    return [{"role": "system", "content": system}] if system and system.strip() else []


def read_history(row: Mapping[str, Any]) -> Messages:
    """`history`, the turns before an alpaca row's own: a list of [question, answer]. Raises: RowFault."""
    history = row.get("history") or []
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise RowFault("history", "is not a list of [question, answer]", ProblemKind.WRONG_TYPE)
    return [
        {"role": role, "content": _said(text, f"history[{index}][{side}]", role)}
        for index, pair in enumerate(history)
        for side, (role, text) in enumerate(zip(("user", "assistant"), pair, strict=True))
    ]


def _list(turns: Any, field: str, of: str) -> list[Any]:
    if not isinstance(turns, list) or not turns:
        raise RowFault(field, f"is not a list of {of}", ProblemKind.WRONG_TYPE)
    return turns


def _message(turn: Any, place: str) -> dict[str, str]:
    role = _one_of(turn, place, "role", "role and content", _ROLE_OF_NAME)
    content = _joined(turn.get("content"), f"{place}.content")
    calls = turn.get("tool_calls") if role == "assistant" else None
    if calls:
        content = with_calls(content, calls, place)
    message = {"role": role, "content": _said(content, f"{place}.content", role)}
    return {**message, **_learned(turn, message, place)} if role == "assistant" else message


def _learned(turn: Mapping[str, Any], answer: dict[str, str], place: str) -> dict[str, str]:
    """What else an answer says of itself: its reasoning goes before it, and with a weight of 0 it is not learned."""
    weight = turn.get("weight")
    if weight not in (None, 0, 1) or isinstance(weight, bool):
        raise RowFault(f"{place}.weight", f"is {str(weight)[:40]}; it may be 0 or 1", ProblemKind.WRONG_TYPE)
    field = next((name for name in _REASONING if turn.get(name)), None)
    more = UNLEARNED if weight == 0 else {}
    if field is None or "</think>" in answer["content"]:
        return more
    reasoning = _said(turn[field], f"{place}.{field}", "reasoning").strip()
    return {"content": f"<think>\n{reasoning}\n</think>\n\n{answer['content']}", **more}


def _joined(content: Any, place: str) -> Any:
    """Parts of text as one text, a paragraph each."""
    if not isinstance(content, list) or not content:
        return content
    kinds = [part.get("type") if isinstance(part, Mapping) else None for part in content]
    odd = next((str(kind) for kind in kinds if kind != "text"), None)
    if odd is not None:
        raise RowFault(place, f"holds a part of the type {odd[:40]}; only text is learned", ProblemKind.WRONG_TYPE)
    texts = [part.get("text") for part in content]
    return "\n\n".join(texts) if all(isinstance(text, str) for text in texts) else None


def _spoken(turn: Any, place: str) -> dict[str, str]:
    role = _one_of(turn, place, "from", "from and value", _ROLE_OF_SPEAKER)
    return {"role": role, "content": _said(turn.get("value"), f"{place}.value", role)}


def _one_of(turn: Any, place: str, field: str, fields: str, known: Mapping[str, str]) -> str:
    if not isinstance(turn, Mapping):
        raise RowFault(place, f"is not an object with {fields}", ProblemKind.WRONG_TYPE)
    name = turn.get(field)
    if not isinstance(name, str) or name not in known:
        raise RowFault(f"{place}.{field}", f"is {str(name)[:40]!r}; known roles: {', '.join(known)}", ProblemKind.ROLE)
    return known[name]


def _said(value: Any, place: str, role: str) -> str:
    if not isinstance(value, str):
        raise RowFault(place, "is not a text", ProblemKind.WRONG_TYPE)
    if not value.strip():
        if role == "assistant":
            raise RowFault(place, "has no answer: it is empty", ProblemKind.EMPTY_ANSWER)
        raise RowFault(place, "is empty", ProblemKind.EMPTY_FIELD)
    return value


def _with_answer(messages: Messages, field: str) -> Messages:
    answers = [message for message in messages if message["role"] == "assistant"]
    if not answers:
        raise RowFault(field, "has no answer: no assistant message behind a user's", ProblemKind.EMPTY_ANSWER)
    if all("weight" in answer for answer in answers):
        raise RowFault(field, "has no answer to learn: each has the weight 0", ProblemKind.EMPTY_ANSWER)
    return messages


def check_order(messages: Messages, field: str, before: str = START, *, is_cut: bool = False) -> str:
    """The last turn's role, where each may follow the one before it. An answer may open what `is_cut`.

    Raises: RowFault.
    """
    for index, role in enumerate(message["role"] for message in messages):
        may_open = is_cut and role == "assistant" and before in (START, "system")
        if role not in _MAY_FOLLOW[before] and not may_open:
            raise RowFault(f"{field}[{index}]", _disorder(before, role), ProblemKind.TURN_ORDER)
        before = role
    return before


def _disorder(before: str, role: str) -> str:
    if role == "assistant" and before in (START, "system"):
        return "is an answer that no user message precedes"
    wanted = " or ".join(_MAY_FOLLOW[before])
    return f"has the role {role} where {wanted} is expected" + (f" after {before}" if before else " at the start")
