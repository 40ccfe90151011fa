"""From messages to token ids and labels: the one place where it is decided which tokens are learned.

`encode_row` is pure, so a preview that calls it shows exactly what the trainer sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import TemplateError

from worker.training.reading import Messages

IGNORED_LABEL = -100

# What a template's expressions raise on values that they do not expect, as Python's own do.
_ERRORS_OF_EXPRESSIONS = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError)

# For a tokenizer that brings no chat template. An answer ends with `<|im_end|>` and, where that is not the tokenizer's
# own end of sequence, with the latter too, so that generation stops by itself.
DEFAULT_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>"
    "{% if message['role'] == 'assistant' and eos_token and eos_token != '<|im_end|>' %}{{ eos_token }}{% endif %}\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """One row as the trainer sees it. `labels[i]` is `input_ids[i]` where the token is learned, else -100."""

    input_ids: list[int]
    labels: list[int]
    total_tokens: int  # before the cut to max_length
    number: int | None = field(default=None, compare=False)  # of its row in the dataset, from 1, where that is known

    @property
    def trained_tokens(self) -> int:
        return sum(label != IGNORED_LABEL for label in self.labels)

    @property
    def truncated(self) -> bool:
        return self.total_tokens > len(self.input_ids)


class TemplateMismatch(Exception):
    """A row for which it cannot be proven which tokens belong to the answers; the text says why."""


class HistoryRewritten(TemplateMismatch):
    """An earlier turn is rendered differently once another follows, as where its reasoning is dropped."""


@dataclass(slots=True)
class _Rendered:
    """A conversation under construction: its text so far and what that text became."""

    tokenizer: Any
    text: str
    input_ids: list[int]
    labels: list[int]

    def extend(self, text: str, *, learn: bool) -> None:
        """Go on to the longer rendering `text`. Raises: TemplateMismatch."""
        if not text.startswith(self.text):
            raise HistoryRewritten("the chat template renders a turn differently once another follows it")
        added = _continuation(self.tokenizer, self.input_ids, self.text, text)
        self.text = text
        self.input_ids += added
        self.labels += _answer_labels(self.tokenizer, added) if learn else [IGNORED_LABEL] * len(added)


def ensure_chat_template(tokenizer: Any) -> bool:
    """Give the tokenizer ChatML where it has no chat template. Returns whether it did."""
    if tokenizer.chat_template:
        return False
    tokenizer.chat_template = DEFAULT_CHAT_TEMPLATE
    return True


def encode_row(tokenizer: Any, messages: Messages, max_length: int) -> EncodedRow:
    """Render by the chat template, tokenize, and label every answer with its end-of-turn token; cut from the end.

    Each step is checked: the rendering up to an answer must begin the rendering with it, and so must the token ids.
    What follows the last answer is left out. Raises: TemplateMismatch, of which HistoryRewritten.
    """
    return _encode_answers(tokenizer, messages, _answers(messages), max_length)


def encode_turns(tokenizer: Any, messages: Messages, max_length: int) -> list[EncodedRow]:
    """One sequence for the row; where the template rewrites history, one for each answer in its own rendering.

    In the latter each answer is learned once, behind the history that generation would give it.
    Raises: TemplateMismatch.
    """
    try:
        return [encode_row(tokenizer, messages, max_length)]
    except HistoryRewritten:
        return [_encode_answers(tokenizer, messages, [index], max_length) for index in _answers(messages)]


def encode_last_turns(tokenizer: Any, messages: Messages, start: int, max_length: int) -> EncodedRow:
    """As `encode_row`, but of the answers only those from the message with the index `start` on are learned."""
    return _encode_answers(tokenizer, messages, [i for i in _answers(messages) if i >= start], max_length)


def _answers(messages: Messages) -> list[int]:
    return [index for index, message in enumerate(messages) if message["role"] == "assistant"]


def _encode_answers(tokenizer: Any, messages: Messages, answers: Sequence[int], max_length: int) -> EncodedRow:
    """One sequence to the last of `answers`, indices of messages, in which just these are learned."""
    conversation = _Rendered(tokenizer, "", [], [])
    for index in answers:
        conversation.extend(_render(tokenizer, messages[:index], prompt=True), learn=False)
        conversation.extend(_render(tokenizer, messages[: index + 1], prompt=False), learn=True)
    if not conversation.input_ids:
        raise TemplateMismatch("the row has no assistant message to learn")
    return EncodedRow(
        conversation.input_ids[:max_length], conversation.labels[:max_length], len(conversation.input_ids)
    )


def _render(tokenizer: Any, messages: Messages, *, prompt: bool) -> str:
    try:
        text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
    except (TemplateError, *_ERRORS_OF_EXPRESSIONS) as error:
        raise TemplateMismatch(f"the chat template refuses the row: {error}") from error
    return text


def _tokenize(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def _continuation(tokenizer: Any, ids: list[int], text: str, longer: str) -> list[int]:
    """The token ids by which `longer` goes on where `text` ended. Raises: TemplateMismatch.

    Usually the longer text's ids begin with the shorter one's. Where a token spans the seam (a template that ends in
    a newline before an answer that starts with one), the rest is tokenized alone, as it comes about in generation,
    provided that both ways spell the same text.
    """
    whole = _tokenize(tokenizer, longer)
    if whole[: len(ids)] == ids:
        return whole[len(ids) :]
    rest = _tokenize(tokenizer, longer[len(text) :])
    if tokenizer.decode(ids + rest) != tokenizer.decode(whole):
        raise TemplateMismatch("the tokenizer does not split where the chat template starts the answer")
    return rest


def special_ids(tokenizer: Any) -> set[int]:
    """Ids of every special token: the named ones (eos, pad, …) and those only marked so, as Phi-3's `<|end|>`."""
    return {*tokenizer.all_special_ids, *(i for i, token in tokenizer.added_tokens_decoder.items() if token.special)}


def _answer_labels(tokenizer: Any, ids: list[int]) -> list[int]:
    """Labels of one answer: all of it to its last special token (the end of turn), not the white space behind that."""
    special = special_ids(tokenizer)
    end = next((i + 1 for i in reversed(range(len(ids))) if ids[i] in special), len(ids))
    if tokenizer.decode(ids[end:]).strip():
        end = len(ids)
    return ids[:end] + [IGNORED_LABEL] * (len(ids) - end)
