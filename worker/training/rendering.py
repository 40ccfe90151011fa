"""What a chat template makes of a conversation; a rendering that leaves something out is refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from jinja2 import TemplateError
from transformers.utils.chat_template_utils import _compile_jinja_template

from worker.training.reading import Messages

# What a template's expressions raise on values that they do not expect, as Python's own do.
_ERRORS_OF_EXPRESSIONS = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError)
# Some templates tell the model today's date. Rows must not depend on the day on which they are encoded, nor a prompt
# differ from them, so it is always the day that Llama's templates name where they are told none.
_TODAY = datetime(2024, 7, 26)
_THINK = re.compile(r"</?think>")
_OPENED = re.compile(r"<think>\n*\Z")  # a start of an answer that is one of its reasoning
_LINES = re.compile(rf"\n|{_THINK.pattern}")  # what a template may put between parts of an answer as it likes


class TemplateMismatch(Exception):
    """A row for which it cannot be proven which tokens belong to the answers; the text says why."""


class HistoryRewritten(TemplateMismatch):
    """Answers that cannot share a sequence: a turn is rendered otherwise once another follows, or nothing ends it."""


def fix_date(tokenizer: Any) -> None:
    """transformers keeps each template compiled, with a function for the date of its own. Raises: TemplateError."""
    _compile_jinja_template(tokenizer.get_chat_template()).globals["strftime_now"] = _strftime_now


def _strftime_now(form: str) -> str:
    return _TODAY.strftime(form)


def render(tokenizer: Any, messages: Messages, *, prompt: bool) -> str:
    """The conversation, or where it is a `prompt` with the start of an answer behind it. Raises: TemplateMismatch."""
    try:
        fix_date(tokenizer)
        text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
    except (TemplateError, *_ERRORS_OF_EXPRESSIONS) as error:
        raise TemplateMismatch(f"the chat template refuses the row: {error}") from error
    return text


def render_answers(tokenizer: Any, messages: Messages, answers: Sequence[int]) -> list[str]:
    """The conversation up to each of `answers`, indices of messages, and with it; each begins with the one before.

    Raises: TemplateMismatch, of which HistoryRewritten.
    """
    texts = [""]
    for index in answers:
        start = render(tokenizer, messages[:index], prompt=True)
        whole = render(tokenizer, messages[: index + 1], prompt=False)
        if len(answers) == 1 and not whole.startswith(start):
            answer = _answer_in_thought(messages[index]["content"], start, whole)
            if answer is None:
                answer = _answer_without_system(tokenizer, messages[: index + 1], start)
            whole = start + answer
        if not start.startswith(texts[-1]) or not whole.startswith(start):
            raise HistoryRewritten("the chat template renders a turn differently once another follows it")
        if not _shows(whole[len(start) :], messages[index]["content"]):
            raise TemplateMismatch("the chat template leaves out a part of the answer")
        texts += [start, whole]
    return texts[1:]


def _answer_in_thought(answer: str, start: str, whole: str) -> str | None:
    """What follows `start` where that opens the reasoning itself, and the template shows none of it behind an answer.

    So do those of R1's distillations and QwQ. Generation then goes on with the reasoning, its end, and the answer; an
    answer without reasoning closes it at once, as these models do where they are to think of nothing. None where the
    template is not of that kind.
    """
    opened = _OPENED.search(start)
    if opened is None or not whole.startswith(start[: opened.start()]):
        return None
    said = whole[opened.start() :]
    if _THINK.search(said):
        return None
    thought = answer.rpartition("</think>")[0].rpartition("<think>")[2].strip("\n")
    begun = "" if start.endswith("\n") else "\n"
    return f"{begun}{thought}\n</think>\n\n" + said.lstrip("\n")


def _answer_without_system(tokenizer: Any, messages: Messages, start: str) -> str:
    """What follows `start`, as generation would have it, of the last message.

    Some templates, such as Mistral's, move the system message into the last turn if that is the user's, so that it is
    gone behind an answer. Without it they render the same answer consistently. Raises: TemplateMismatch.
    """
    rest = [message for message in messages if message["role"] != "system"]
    bare = render(tokenizer, rest[:-1], prompt=True) if rest[:-1] else ""
    whole = render(tokenizer, rest, prompt=False)
    asked = rest[-2]["content"].strip() if rest[:-1] else ""
    ending = bare[bare.rfind(asked) :] if asked else ""
    if not ending or not whole.startswith(bare) or not start.endswith(ending):
        opening = f"its start of an answer ends in {start[-20:]!r}"
        raise TemplateMismatch(f"the chat template renders this answer otherwise than it asks for one: {opening}")
    return whole[len(bare) :]


def _shows(rendering: str, answer: str) -> bool:
    """Whether each line of the answer stands in its rendering, in order; the white space around lines may differ."""
    place = 0
    for line in map(str.strip, _LINES.split(answer)):
        place = rendering.find(line, place)
        if place < 0:
            return False
        place += len(line)
    return True


class Shown:
    """Which kinds of turns a chat template shows at all, asked once for each sequence of roles."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._left_out: dict[tuple[str, ...], str | None] = {}

    def require(self, messages: Messages) -> None:
        """The turns before an answer. Raises: TemplateMismatch where one that is not an answer is left out."""
        roles = tuple(message["role"] for message in messages)
        if roles not in self._left_out:
            self._left_out[roles] = self._find(roles)
        role = self._left_out[roles]
        if role:
            raise TemplateMismatch(f"the chat template leaves out the {role} turn")

    def _find(self, roles: tuple[str, ...]) -> str | None:
        """The role of the first turn whose words do not show. What a template refuses is told of the row itself."""
        names = [f"Turn number {number} here" for number in range(len(roles))]
        turns = [{"role": role, "content": name} for role, name in zip(roles, names, strict=True)]
        try:
            text = render(self._tokenizer, turns, prompt=True)
        except TemplateMismatch:
            return None
        shown = zip(roles, names, strict=True)
        return next((role for role, name in shown if role != "assistant" and name not in text), None)
