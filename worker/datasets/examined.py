"""A row as training would see it, and what is to be known of it: without a word about how that is shown."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from app.core.datasets.xray import Flag
from app.core.jobs.spec import TrainingSpec
from worker.training.data import IGNORED_LABEL, EncodedRow, TemplateMismatch, special_ids
from worker.training.encoding import Dropped, Encoded, Encoding, encode_all

_WHY_DROPPED = {
    Dropped.TOO_LONG: "it is longer than max_length = {0.max_length}, and overlong_rows is drop",
    Dropped.NOTHING_LEARNED: "no token to learn is left within max_length = {0.max_length}",
    Dropped.ALIKE: "both answers are the same within max_length = {0.max_length}",
}
_TURN_ENDS = (Flag.END_OF_TURN_TRAINED, Flag.END_OF_TURN_MISSING)
_TEXT_ENDS = (Flag.END_OF_TEXT_TRAINED, Flag.END_OF_TEXT_MISSING)


@dataclass(frozen=True, slots=True)
class Examined:
    """A row by its number, from 1. `encoding` is None where the chat template refuses it, and `reason` says why."""

    number: int
    encoding: Encoding | None
    flags: list[Flag]
    reason: str | None = None


class Examiner:
    """Looks at rows one by one. `held_out` are the numbers, from 0, of the rows that are not trained on."""

    def __init__(self, tokenizer: Any, spec: TrainingSpec, held_out: Collection[int]) -> None:
        self._tokenizer = tokenizer
        self._spec = spec
        self._held_out = frozenset(held_out)
        self._special = special_ids(tokenizer)
        self._puts_bos_first = tokenizer.bos_token_id in tokenizer("a")["input_ids"][:1]  # where it renders no template

    def examine(self, first: int, rows: Sequence[Any]) -> Iterator[Examined]:
        """Encode, as training does, what was read of neighbouring rows, of which the first has that number."""
        for number, encoded in enumerate(encode_all(self._tokenizer, rows, self._spec), start=first):
            yield self._describe(number, encoded)

    def _describe(self, number: int, encoding: Encoded) -> Examined:
        apart = [Flag.HELD_OUT] if number - 1 in self._held_out else []
        if isinstance(encoding, TemplateMismatch):
            return Examined(number, None, [Flag.REFUSED, *apart], str(encoding))
        reason = _WHY_DROPPED[encoding.dropped].format(self._spec) if encoding.dropped else None
        return Examined(number, encoding, [*self._flags(encoding), *apart], reason)

    def _flags(self, encoding: Encoding) -> list[Flag]:
        sequences, pair = encoding.sequences, self._spec.task == "dpo"
        found = {*self._beginnings(sequences), *self._ends(sequences)}
        checks = {
            Flag.SEVERAL_SEQUENCES: len(sequences) > (2 if pair else 1),
            Flag.CUT: encoding.truncated,
            Flag.ANSWER_LOST: not all(sequence.trained_tokens for sequence in sequences),
            Flag.DROPPED: encoding.dropped is not None,
        }
        found |= {flag for flag, there in checks.items() if there}
        return [flag for flag in Flag if flag in found]

    def _beginnings(self, sequences: list[EncodedRow]) -> Iterator[Flag]:
        """Of a text that is split only the first window begins it."""
        bos = self._tokenizer.bos_token_id
        for sequence in sequences[:1] if self._spec.task == "text" else sequences:
            if bos is not None and sequence.input_ids[:1] == [bos]:
                yield Flag.BOS
            elif self._puts_bos_first:
                yield Flag.BOS_MISSING
            if bos is not None and sequence.input_ids[:2] == [bos, bos]:
                yield Flag.BOS_DOUBLED

    def _ends(self, sequences: list[EncodedRow]) -> Iterator[Flag]:
        """Whether what is learned ends with a special token, wherever the end is not cut off."""
        text = self._spec.task == "text"
        learned, missing = _TEXT_ENDS if text else _TURN_ENDS
        ends = [end for sequence in (sequences[-1:] if text else sequences) for end in self._uncut_ends(sequence)]
        if ends:
            yield learned if all(ends) else missing

    def _uncut_ends(self, sequence: EncodedRow) -> Iterator[bool]:
        for trained, _, end in spans(sequence.labels):
            if trained and not (sequence.truncated and end == len(sequence.labels)):
                yield sequence.input_ids[end - 1] in self._special


def spans(labels: list[int]) -> Iterator[tuple[bool, int, int]]:
    """Neighbouring tokens that are all learned, or all not: whether they are, from which one, to before which one."""
    start = 0
    for trained, group in groupby(labels, key=lambda label: label != IGNORED_LABEL):
        end = start + sum(1 for _ in group)
        yield trained, start, end
        start = end
