"""From messages to token ids and labels: the one place where it is decided which tokens are learned.

`encode_row` is pure, so a preview that calls it shows exactly what the trainer sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import Any

from worker.training.reading import Messages
from worker.training.rendering import HistoryRewritten, Shown, render_answers
from worker.training.rendering import TemplateMismatch as TemplateMismatch
from worker.training.tokens import Cuts, Encoder, Ids, encode_together, ids_of_beginnings

IGNORED_LABEL = -100

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
        return len(self.labels) - self.labels.count(IGNORED_LABEL)

    @property
    def truncated(self) -> bool:
        return self.total_tokens > len(self.input_ids)


class RowTokenizer:
    """A tokenizer with what is asked of it for every row."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.cuts = Cuts(tokenizer)
        self.special = special_ids(tokenizer)
        self.shown = Shown(tokenizer)
        self._blank: dict[tuple[int, ...], bool] = {(): True}

    def ends(self, ids: Ids) -> bool:
        """Whether a special token ends an answer of these ids."""
        return self.end_of(ids) is not None

    def end_of(self, ids: Ids) -> int | None:
        """Behind an answer's last special token, where nothing but white space follows it."""
        end = next((i + 1 for i in reversed(range(len(ids))) if ids[i] in self.special), None)
        return end if end is not None and self._is_blank(ids[end:]) else None

    def _is_blank(self, ids: Ids) -> bool:
        """Whether the ids spell white space alone."""
        known = tuple(ids)
        if known not in self._blank:
            self._blank[known] = not self.tokenizer.decode(ids).strip()
        return self._blank[known]


def ensure_chat_template(tokenizer: Any) -> bool:
    """Give the tokenizer ChatML where it has no chat template. Returns whether it did."""
    if tokenizer.chat_template:
        return False
    tokenizer.chat_template = DEFAULT_CHAT_TEMPLATE
    return True


def encode_row(tokenizer: Any, messages: Messages, max_length: int) -> EncodedRow:
    """One sequence in which every answer is learned, see `encode_answers`. Raises: TemplateMismatch."""
    encoder = encode_answers(RowTokenizer(tokenizer), messages, _answers(messages), max_length)
    (found,) = encode_together(tokenizer, [encoder], TemplateMismatch)
    if isinstance(found, TemplateMismatch):
        raise found
    row: EncodedRow = found
    return row


def turns_encoder(rows: RowTokenizer, messages: Messages, max_length: int) -> Encoder[list[EncodedRow]]:
    """One sequence for the row; where answers cannot share one, one for each answer in its own rendering.

    In the latter each answer is learned once, behind the history that generation would give it.
    Raises: TemplateMismatch.
    """
    answers = _answers(messages)
    try:
        return [(yield from encode_answers(rows, messages, answers, max_length))]
    except HistoryRewritten:
        sequences = []
        for index in answers:
            sequences.append((yield from encode_answers(rows, messages, [index], max_length)))
        return sequences


def last_turns_encoder(rows: RowTokenizer, messages: Messages, start: int, max_length: int) -> Encoder[EncodedRow]:
    """One sequence; of its answers only those from the message with the index `start` on are learned."""
    return encode_answers(rows, messages, [index for index in _answers(messages) if index >= start], max_length)


def _answers(messages: Messages) -> list[int]:
    """Indices of the assistant's messages that are learned."""
    return [i for i, message in enumerate(messages) if message["role"] == "assistant" and "weight" not in message]


def encode_answers(
    rows: RowTokenizer, messages: Messages, answers: Sequence[int], max_length: int
) -> Encoder[EncodedRow]:
    """One sequence to the last of `answers`, indices of messages, each learned with its end-of-turn token.

    It is rendered by the chat template, tokenized, and cut from the end. Each step is checked: the rendering up to an
    answer must begin the rendering with it, and so must the token ids. What follows the last answer is left out.
    A template that puts no special token behind an answer gets the tokenizer's end of sequence, behind the last one.
    Raises: TemplateMismatch, of which HistoryRewritten.
    """
    if not answers:
        raise TemplateMismatch("the row has no assistant message to learn")
    texts = render_answers(rows.tokenizer, messages, answers)
    rows.shown.require(messages[: answers[-1]])
    parts = yield from _parts(rows, texts)
    eos = rows.tokenizer.eos_token_id
    if eos is not None and not all(map(rows.ends, parts[1::2])):
        if len(answers) > 1:
            raise HistoryRewritten("the chat template puts nothing behind an answer that ends it")
        parts = yield from _parts(rows, [texts[0], texts[0] + texts[1][len(texts[0]) :].rstrip()])
        parts[-1] = [*parts[-1], eos]
    ids = list(chain.from_iterable(parts))
    labels = [label for step, part in enumerate(parts) for label in _labels(rows, part, learned=step % 2 == 1)]
    return EncodedRow(ids[:max_length], labels[:max_length], len(ids))


def _parts(rows: RowTokenizer, texts: Sequence[str]) -> Encoder[list[Ids]]:
    """The ids that each text adds to the one before. Raises: TemplateMismatch."""
    wholes = yield from ids_of_beginnings(rows.cuts, texts)
    ids: Ids = []
    parts: list[Ids] = []
    for whole, (text, longer) in zip(wholes, pairwise(["", *texts]), strict=True):
        parts.append((yield from _continuation(rows.tokenizer, ids, text, longer, whole)))
        ids = ids + parts[-1]
    return parts


def _continuation(tokenizer: Any, ids: Ids, text: str, longer: str, whole: Ids) -> Encoder[Ids]:
    """The token ids by which `longer`, whose ids are `whole`, goes on where `text` ended. Raises: TemplateMismatch.

    Usually the longer text's ids begin with the shorter one's. Where a token spans the seam (a template that ends in
    a newline before an answer that starts with one), the rest is tokenized alone, as it comes about in generation,
    provided that both ways spell the same text.
    """
    if whole[: len(ids)] == ids:
        return whole[len(ids) :]
    (rest,) = yield [longer[len(text) :]]
    if tokenizer.decode(ids + rest) != tokenizer.decode(whole):
        raise TemplateMismatch("the tokenizer does not split where the chat template starts the answer")
    return rest


def special_ids(tokenizer: Any) -> set[int]:
    """Ids of every special token: the named ones (eos, pad, …) and those only marked so, as Phi-3's `<|end|>`."""
    return {*tokenizer.all_special_ids, *(i for i, token in tokenizer.added_tokens_decoder.items() if token.special)}


def _labels(rows: RowTokenizer, ids: Ids, *, learned: bool) -> list[int]:
    """Of an answer: all of it to its last special token (the end of turn), not the white space behind that."""
    end = (rows.end_of(ids) or len(ids)) if learned else 0
    return ids[:end] + [IGNORED_LABEL] * (len(ids) - end)
