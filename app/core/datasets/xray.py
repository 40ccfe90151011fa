"""The loss-mask X-ray: a dataset's rows as training would see them. The worker makes it, the web shows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import TypedDict

XRAY_FILE = "preview.json"  # in the job's folder
WINDOW_ROWS = 50  # that one job encodes


class Flag(StrEnum):
    """What is to be known of a row beside its tokens."""

    BOS = "bos"
    BOS_DOUBLED = "bos_doubled"
    BOS_MISSING = "bos_missing"
    END_OF_TURN_TRAINED = "end_of_turn_trained"
    END_OF_TURN_MISSING = "end_of_turn_missing"
    END_OF_TEXT_TRAINED = "end_of_text_trained"
    END_OF_TEXT_MISSING = "end_of_text_missing"
    SEVERAL_SEQUENCES = "several_sequences"
    CUT = "cut"
    ANSWER_LOST = "answer_lost"
    DROPPED = "dropped"
    REFUSED = "refused"
    HELD_OUT = "held_out"


FLAG_WORDS: Mapping[Flag, str] = {
    Flag.BOS: "begins with the BOS token",
    Flag.BOS_DOUBLED: "begins with the BOS token twice",
    Flag.BOS_MISSING: "lacks the BOS token that the tokenizer puts first by itself",
    Flag.END_OF_TURN_TRAINED: "end of turn is learned",
    Flag.END_OF_TURN_MISSING: "an answer ends without a special token to learn, so the model may not learn to stop",
    Flag.END_OF_TEXT_TRAINED: "end of text is learned",
    Flag.END_OF_TEXT_MISSING: "the text ends without an end-of-sequence token",
    Flag.SEVERAL_SEQUENCES: "several sequences",
    Flag.CUT: "cut at max_length",
    Flag.ANSWER_LOST: "nothing of an answer is left to learn",
    Flag.DROPPED: "left out of training",
    Flag.REFUSED: "refused by the chat template: a job would stop here",
    Flag.HELD_OUT: "held out for the eval loss",
}
ORDINARY = frozenset(
    {Flag.BOS, Flag.END_OF_TURN_TRAINED, Flag.END_OF_TEXT_TRAINED, Flag.SEVERAL_SEQUENCES, Flag.HELD_OUT}
)


def suspicious(flags: Iterable[str]) -> bool:
    """Whether someone should look at a row with these flags."""
    return not ORDINARY.issuperset(flags)


class Token(TypedDict):
    """One token. `text` is exact: the texts in a row spell the sequence; a byte that is no character is `<0xE2>`."""

    id: int
    text: str
    trained: bool
    special: bool


class Run(TypedDict):
    """Neighbouring tokens that are all learned, or all not, as one text."""

    trained: bool
    tokens: int
    text: str


class Pack(TypedDict):
    """What a sequence shares its pack with. `number` and `place` count from 1; `rows` are those of the whole pack."""

    number: int
    place: int
    rows: list[int]
    tokens: int


class XraySequence(TypedDict):
    """Which of the row's tokens are one sequence: those from `start` to before `end`.

    Of a pair `name` is chosen or rejected. `total_tokens` is before the cut; `kept`: it is trained on (or measured by).
    """

    name: str | None
    start: int
    end: int
    trained_tokens: int
    total_tokens: int
    kept: bool
    runs: list[Run]
    pack: Pack | None


class XrayRow(TypedDict):
    """A row by its number, from 1. `tokens` are those of all its sequences, each cut to max_length.

    `total_tokens` is before the cut. `left_out_tokens` are not listed, in a huge row; the counts hold for all.
    `reason` says why it is dropped or refused.
    """

    row: int
    tokens: list[Token]
    trained_tokens: int
    total_tokens: int
    left_out_tokens: int
    flags: list[str]
    reason: str | None
    sequences: list[XraySequence]


class Packing(TypedDict):
    """How far the plan of the packs goes: over all rows that are trained on, or as if these rows were all.

    The latter where only `tokenized` of the rows could be tokenized in the time there is.
    """

    whole: bool
    tokenized: int
    packs: int
    sequences: int


class Xray(TypedDict):
    """The file `preview.json`: rows `first` to `last`, none where `last` is less; `found` where it was searched."""

    first: int
    last: int
    total: int
    rows: list[XrayRow]
    packing: Packing | None
    bos: str | None
    eos: str | None
    default_template: bool
    exact: bool
