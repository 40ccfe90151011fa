"""Examined rows as the X-ray shows them: tokens with their texts, runs, and the packs that sequences share."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from app.core.datasets.xray import Flag, Pack, Run, Token, XrayRow, XraySequence
from worker.datasets.examined import Examined, spans
from worker.datasets.token_texts import TokenTexts
from worker.training.data import IGNORED_LABEL, EncodedRow
from worker.training.pack_plan import pack

SHOWN_TOKENS = 65_536  # of one row, at most
SIDES = ("chosen", "rejected")

Packs = Mapping[int, Sequence[Pack]]  # by a row's number: where each of its sequences lies that is trained on


def show(examined: Examined, texts: TokenTexts, packs: Packs, *, pair: bool) -> XrayRow:
    """The row for the reader; of a `pair` the sequences have names."""
    sequences = examined.encoding.sequences if examined.encoding else []
    tokens: list[Token] = []
    shown: list[XraySequence] = []
    lies_in = iter(packs.get(examined.number, ()))
    for index, sequence in enumerate(sequences):
        kept = examined.encoding is not None and any(sequence is each for each in examined.encoding.kept)
        start = len(tokens)
        tokens += islice(_tokens(sequence, texts), SHOWN_TOKENS - start)
        shown.append(
            {
                "name": SIDES[index] if pair else None,
                "start": start,
                "end": len(tokens),
                "trained_tokens": sequence.trained_tokens,
                "total_tokens": sequence.total_tokens,
                "kept": kept,
                "runs": _runs(sequence, texts, len(tokens) - start),
                "pack": next(lies_in, None) if kept else None,
            }
        )
    return {
        "row": examined.number,
        "tokens": tokens,
        "trained_tokens": sum(sequence.trained_tokens for sequence in sequences),
        "total_tokens": sum(sequence.total_tokens for sequence in sequences),
        "left_out_tokens": sum(len(sequence.input_ids) for sequence in sequences) - len(tokens),
        "flags": [flag.value for flag in examined.flags],
        "reason": examined.reason,
        "sequences": shown,
    }


def _tokens(sequence: EncodedRow, texts: TokenTexts) -> Iterable[Token]:
    for number, label in zip(sequence.input_ids, sequence.labels, strict=True):
        special = number in texts.special
        yield {"id": number, "text": texts.text(number), "trained": label != IGNORED_LABEL, "special": special}


def _runs(sequence: EncodedRow, texts: TokenTexts, count: int) -> list[Run]:
    """Of the sequence's first `count` tokens."""
    return [
        {"trained": trained, "tokens": end - start, "text": texts.join(sequence.input_ids[start:end])}
        for trained, start, end in spans(sequence.labels[:count])
    ]


def lengths_to_pack(examined: Examined) -> list[tuple[int, int]]:
    """The row's number with the length of each of its sequences that is trained on."""
    if examined.encoding is None or Flag.HELD_OUT in examined.flags:
        return []
    return [(examined.number, len(sequence.input_ids)) for sequence in examined.encoding.kept]


def plan_packs(lengths: Sequence[tuple[int, int]], capacity: int) -> dict[int, list[Pack]]:
    """By row: the pack of each of its sequences, as training packs these `lengths`, given in the dataset's order."""
    pack_of = pack([length for _, length in lengths], capacity)
    members: dict[int, list[int]] = defaultdict(list)
    for index, number in enumerate(pack_of):
        members[number].append(index)
    rows = {number: [lengths[index][0] for index in indices] for number, indices in members.items()}
    tokens = {number: sum(lengths[index][1] for index in indices) for number, indices in members.items()}
    packs: dict[int, list[Pack]] = defaultdict(list)
    for index, number in enumerate(pack_of):
        place = bisect_left(members[number], index) + 1
        packs[lengths[index][0]].append(
            {"number": number + 1, "place": place, "rows": rows[number], "tokens": tokens[number]}
        )
    return packs
