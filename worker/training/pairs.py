"""Preference pairs: one prompt with two answers, each a sequence of its own, encoded by the rules of any answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from worker.training.data import IGNORED_LABEL, EncodedRow, RowTokenizer, TemplateMismatch, last_turns_encoder
from worker.training.encoded import Sequences, Whole
from worker.training.reading import Messages, Object, as_messages
from worker.training.tokens import Encoder

Pair = tuple[Messages, Messages, Messages]  # prompt, chosen, rejected


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """One pair as the trainer sees it; `number` tells it from all others of its dataset."""

    number: int
    chosen: EncodedRow
    rejected: EncodedRow


def pair_of(row: Object) -> Pair:
    """The turns of a row of preferences. Raises: KeyError, TypeError."""
    return as_messages(row["prompt"]), as_messages(row["chosen"]), as_messages(row["rejected"])


def pair_encoder(rows: RowTokenizer, pair: Pair, max_length: int) -> Encoder[list[EncodedRow]]:
    """The chosen and the rejected sequence, in which only what follows the prompt is learned, each cut from the end.

    Raises: TemplateMismatch, also where the two can be compared and yet their prompts differ.
    """
    prompt, *answers = pair
    sides = []
    for answer in answers:
        sides.append((yield from last_turns_encoder(rows, [*prompt, *answer], len(prompt), max_length)))
    if comparable(sides) and _prompt_ids(sides[0]) != _prompt_ids(sides[1]):
        raise TemplateMismatch("the chat template renders the prompt differently for the two answers")
    return sides


def comparable(sides: Sequence[EncodedRow]) -> bool:
    """Whether the cut left something of both answers, and not the same of both."""
    chosen, rejected = sides
    return bool(chosen.trained_tokens and rejected.trained_tokens) and chosen.input_ids != rejected.input_ids


def _prompt_ids(row: EncodedRow) -> list[int]:
    """The ids before the first one that is learned."""
    return row.input_ids[: next(i for i, label in enumerate(row.labels) if label != IGNORED_LABEL)]


class Pairs(Sequence[EncodedPair]):
    """Pairs whose sides lie behind each other in `sides`: chosen, rejected, chosen, …"""

    def __init__(self, sides: Sequences) -> None:
        self._sides = sides

    def __len__(self) -> int:
        return len(self._sides) // 2

    @overload
    def __getitem__(self, index: int) -> EncodedPair: ...

    @overload
    def __getitem__(self, index: slice) -> Pairs: ...

    def __getitem__(self, index: int | slice) -> EncodedPair | Pairs:
        if isinstance(index, slice):
            return self._take(np.arange(len(self))[index])
        number = int(self._sides.places[2 * index]) // 2
        return EncodedPair(number, self._sides[2 * index], self._sides[2 * index + 1])

    @property
    def lengths(self) -> Whole:
        """Tokens of each pair, both sides together."""
        lengths: Whole = self._sides.lengths.reshape(-1, 2).sum(axis=1)
        return lengths

    @property
    def longer_sides(self) -> Whole:
        """Tokens of the longer sequence of each pair: what a cut to some length goes by, and the most memory."""
        longer: Whole = self._sides.lengths.reshape(-1, 2).max(axis=1)
        return longer

    @property
    def trained_tokens(self) -> int:
        """Labelled tokens of all pairs, both sides together."""
        return self._sides.trained_tokens

    def by_length(self) -> Pairs:
        """The same, the shortest first."""
        return self._take(np.argsort(self.lengths, kind="stable"))

    def _take(self, order: Whole) -> Pairs:
        return Pairs(self._sides.take(np.stack((2 * order, 2 * order + 1), axis=1).reshape(-1)))
