"""Preference pairs: a prompt, the answer that was chosen, and the one that was rejected."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile
from typing import Any

from app.core.datasets.faults import RowFault
from app.core.datasets.fields import answer_field, question
from app.core.datasets.report import ProblemKind
from app.core.datasets.turns import START, Messages, check_order, opening, read_turn, read_turns

Pair = dict[str, Messages]  # prompt, chosen, rejected


def of_question(row: Mapping[str, Any]) -> Pair:
    """`instruction` and `input` ask, `chosen` and `rejected` answer. Raises: RowFault."""
    prompt = [{"role": "user", "content": question(row, "input")}]
    return _pair(row, "instruction", prompt, _answers(row, "chosen"), _answers(row, "rejected"))


def of_conversations(row: Mapping[str, Any]) -> Pair:
    """`conversations` up to the answer; `chosen` and `rejected` are its turns or texts. Raises: RowFault."""
    prompt = read_turns(row["conversations"], "conversations")
    return _pair(row, "conversations", prompt, _answers(row, "chosen"), _answers(row, "rejected"))


def of_prompt(row: Mapping[str, Any]) -> Pair:
    """`prompt`, `chosen` and `rejected`, each a text or a list of turns.

    Where both answers are whole conversations, the prompt is what they share, and the field of that name may be
    missing. Raises: RowFault.
    """
    chosen, rejected = _answers(row, "chosen"), _answers(row, "rejected")
    prompt = _prompt(row)
    if chosen[0]["role"] == "assistant" or rejected[0]["role"] == "assistant":
        if not prompt:
            message = "is missing, and chosen and rejected are not whole conversations"
            raise RowFault("prompt", message, ProblemKind.MISSING_FIELD)
        return _pair(row, "prompt", prompt, chosen, rejected)
    return _part(row, prompt, chosen, rejected)


def _prompt(row: Mapping[str, Any]) -> Messages:
    value = row.get("prompt")
    if isinstance(value, str):
        return [{"role": "user", "content": value}] if value.strip() else []
    return [] if value is None else read_turns(value, "prompt")


def _answers(row: Mapping[str, Any], field: str) -> Messages:
    value = row.get(field)
    if isinstance(value, Mapping):
        return [read_turn(value, field)]
    if isinstance(value, list) and value:
        return read_turns(value, field)
    return [{"role": "assistant", "content": answer_field({field: "" if value == [] else value}, field)}]


def _part(row: Mapping[str, Any], prompt: Messages, chosen: Messages, rejected: Messages) -> Pair:
    """Split two whole conversations behind the last turn that they share."""
    _refuse_same(chosen, rejected)
    pairs = zip(chosen, rejected, strict=False)
    shared = [turn for turn, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]
    if not shared:
        raise RowFault(
            "rejected", "does not begin with the turns with which chosen begins", ProblemKind.PROMPT_MISMATCH
        )
    if any(turn not in shared for turn in prompt):
        raise RowFault(
            "prompt", "is not among the turns with which chosen and rejected begin", ProblemKind.PROMPT_MISMATCH
        )
    for name, turns in (("chosen", chosen), ("rejected", rejected)):
        if len(turns) == len(shared):
            message = "has no answer behind the turns that chosen and rejected share"
            raise RowFault(name, message, ProblemKind.EMPTY_ANSWER)
    return _pair(row, "chosen", shared, chosen[len(shared) :], rejected[len(shared) :])


def _pair(row: Mapping[str, Any], field: str, prompt: Messages, chosen: Messages, rejected: Messages) -> Pair:
    """Check all turns' order. `field` is where the prompt stands. Raises: RowFault."""
    _refuse_same(chosen, rejected)
    system = opening(row)
    last = check_order(prompt, field, before="system" if system else START)
    if last not in ("user", "tool"):
        message = f"ends with the role {last}: what is to be answered must end with user or tool"
        raise RowFault(field, message, ProblemKind.TURN_ORDER)
    for name, answers in (("chosen", chosen), ("rejected", rejected)):
        if check_order(answers, name, before=last) != "assistant":
            raise RowFault(name, "does not end with an answer (the role assistant)", ProblemKind.TURN_ORDER)
    return {"prompt": system + prompt, "chosen": chosen, "rejected": rejected}


def _refuse_same(chosen: Messages, rejected: Messages) -> None:
    if chosen == rejected:
        raise RowFault("rejected", "is the same as chosen: there is nothing to prefer", ProblemKind.SAME_ANSWERS)
