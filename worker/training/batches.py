"""Rows to batches: end to end in one sequence, or padded on the right; and an order that needs little padding."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch.utils.data import Sampler

from worker.in_hand import Origins
from worker.training.attention import proves_isolation
from worker.training.data import IGNORED_LABEL, EncodedRow


@dataclass(frozen=True, slots=True)
class Collator:
    """Rows to one batch, padded on the right: `input_ids` and `labels` (batch, seq), `tokens` (a plain int, unpadded).

    There is no attention mask: in a causal model a real token never sees the padding to its right, and padding has
    no label, whatever id it has (it may well be the end-of-turn token's).
    """

    pad_token_id: int

    def __call__(self, rows: Sequence[EncodedRow]) -> dict[str, Any]:
        width = max(len(row.input_ids) for row in rows)
        input_ids = torch.full((len(rows), width), self.pad_token_id)
        labels = torch.full((len(rows), width), IGNORED_LABEL)
        for index, row in enumerate(rows):
            input_ids[index, : len(row.input_ids)] = torch.tensor(row.input_ids)
            labels[index, : len(row.labels)] = torch.tensor(row.labels)
        origins = _origins(rows)
        return {"input_ids": input_ids, "labels": labels, "tokens": sum(origins.lengths), "origins": origins}


@dataclass(frozen=True, slots=True)
class FlatCollator:
    """Rows end to end in one sequence: `input_ids`, `labels`, `position_ids` (1, tokens), positions from 0 in each row.

    `row_lengths` (ints) tell the attention where rows end; `tokens` is their sum. A row's first token has no label:
    what comes before it is another row. Needs `attention_per_row`.
    """

    def __call__(self, rows: Sequence[EncodedRow]) -> dict[str, Any]:
        origins = _origins(rows)
        return {
            "input_ids": _sequence(row.input_ids for row in rows),
            "labels": _sequence([IGNORED_LABEL, *row.labels[1:]] for row in rows),
            "position_ids": _sequence(range(length) for length in origins.lengths),
            "row_lengths": origins.lengths,
            "tokens": sum(origins.lengths),
            "origins": origins,
        }


def _origins(rows: Sequence[EncodedRow]) -> Origins:
    """Which rows a batch holds, for the case that it is the last one."""
    return Origins(tuple(row.number for row in rows), tuple(len(row.input_ids) for row in rows))


def _sequence(parts: Iterable[Iterable[int]]) -> torch.Tensor:
    return torch.tensor([list(chain.from_iterable(parts))])


def choose_collator(model: Any, pad_token_id: int, longest: int) -> Collator | FlatCollator:
    """Flattened batches where the model proves that it keeps rows of up to `longest` tokens apart, else padded ones."""
    return FlatCollator() if proves_isolation(model, longest) else Collator(pad_token_id)


class LengthGroupedSampler(Sampler[int]):
    """Rows of like length side by side, so that batches hold little padding; the batches come in random order.

    transformers' sampler walks each group of batches from the longest to the shortest, which shows as a saw-tooth in
    the loss. The longest batch still comes first, so that a lack of memory shows at once. Each epoch has an order of
    its own, which follows from the seed and the epoch alone, so that it can be had again.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._group_size = batch_size * max(1, min(len(lengths) // (batch_size * 4), 50))
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next; the Trainer does so."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        order, source = list(range(len(self._lengths))), random.Random(f"{self._seed} {self._epoch}")
        source.shuffle(order)
        groups = (self._sorted(order[i : i + self._group_size]) for i in range(0, len(order), self._group_size))
        batches = [group[i : i + self._batch_size] for group in groups for i in range(0, len(group), self._batch_size)]
        short = [batches.pop()] if len(batches[-1]) < self._batch_size else []  # a short batch must come last
        source.shuffle(batches)
        longest = max(range(len(batches)), key=lambda i: self._lengths[batches[i][0]], default=0)
        batches[:1], batches[longest : longest + 1] = batches[longest : longest + 1], batches[:1]
        return (index for batch in batches + short for index in batch)

    def _sorted(self, rows: list[int]) -> list[int]:
        return sorted(rows, key=lambda i: self._lengths[i], reverse=True)
