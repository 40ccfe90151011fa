"""The report of the dataset doctor: what is wrong with rows, and how they look to a model. The worker makes it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypedDict

NAMED_PROBLEMS = 10  # of each kind, so many are named; all are counted


class ProblemKind(StrEnum):
    """What can be wrong with a row."""

    FILE = "file"
    UNREADABLE = "unreadable"
    SURROGATE = "surrogate"
    NOT_FINITE = "not_finite"
    FORMAT = "format"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    EMPTY_FIELD = "empty_field"
    EMPTY_ANSWER = "empty_answer"
    ROLE = "role"
    TURN_ORDER = "turn_order"
    PROMPT_MISMATCH = "prompt_mismatch"
    SAME_ANSWERS = "same_answers"
    REFUSED = "refused"
    ANSWER_LOST = "answer_lost"
    OPENING_LEFT_OUT = "opening_left_out"
    REPLACEMENT_CHARACTER = "replacement_character"
    MOJIBAKE = "mojibake"
    CONTROL_CHARACTER = "control_character"
    INVISIBLE_CHARACTER = "invisible_character"
    BIDI_CONTROL = "bidi_control"


KIND_WORDS: Mapping[ProblemKind, str] = {
    ProblemKind.FILE: "The file cannot be read on",
    ProblemKind.UNREADABLE: "Rows that cannot be read",
    ProblemKind.SURROGATE: "Half a character (lone surrogate)",
    ProblemKind.NOT_FINITE: "NaN or infinite numbers",
    ProblemKind.FORMAT: "Rows of another or no known format",
    ProblemKind.MISSING_FIELD: "Fields that are missing",
    ProblemKind.WRONG_TYPE: "Fields that hold something else than they should",
    ProblemKind.EMPTY_FIELD: "Empty fields or turns",
    ProblemKind.EMPTY_ANSWER: "Empty answers",
    ProblemKind.ROLE: "Unknown roles",
    ProblemKind.TURN_ORDER: "Turns out of order",
    ProblemKind.PROMPT_MISMATCH: "Pairs whose answers do not share their prompt",
    ProblemKind.SAME_ANSWERS: "Pairs with nothing to prefer",
    ProblemKind.REFUSED: "Rows that the model's chat template refuses",
    ProblemKind.ANSWER_LOST: "Rows that lose a whole answer at max_length",
    ProblemKind.OPENING_LEFT_OUT: "Opening answers that are left out",
    ProblemKind.REPLACEMENT_CHARACTER: "Replacement characters: text that was lost in a conversion",
    ProblemKind.MOJIBAKE: "Text that was decoded with the wrong encoding",
    ProblemKind.CONTROL_CHARACTER: "Control characters",
    ProblemKind.INVISIBLE_CHARACTER: "Characters that cannot be seen",
    ProblemKind.BIDI_CONTROL: "Marks that change the direction of writing",
}
USABLE = frozenset(  # a job can train on rows with these; any other kind stops it, or makes the file be refused
    {
        ProblemKind.ANSWER_LOST,
        ProblemKind.OPENING_LEFT_OUT,
        ProblemKind.REPLACEMENT_CHARACTER,
        ProblemKind.MOJIBAKE,
        ProblemKind.CONTROL_CHARACTER,
        ProblemKind.INVISIBLE_CHARACTER,
        ProblemKind.BIDI_CONTROL,
    }
)


class Problem(TypedDict):
    """One finding. `row` counts from 1, and is None where the file as a whole is meant; `field` may be empty."""

    row: int | None
    field: str
    kind: str
    message: str


class Duplicate(TypedDict):
    """A row that says the same as the earlier row `of`."""

    row: int
    of: int


class Histogram(TypedDict):
    """`counts[i]` rows have from `i * width` to less than `(i + 1) * width` tokens; `over` rows have more than all."""

    width: int
    counts: list[int]
    over: int


class Choice(TypedDict):
    """What training keeps under one way to treat overlong rows."""

    overlong_rows: str
    rows: int
    trained_tokens: int


class Tokens(TypedDict):
    """Lengths under the model, before the cut; of a pair the longer answer counts, with its prompt.

    `truncated` rows are longer than max_length; `answer_lost` of them keep nothing of an answer. `rewritten` rows
    become several sequences, since the chat template renders earlier turns differently later. `refused` rows are those
    that it does not take; `rows` are all others, and lengths are theirs.
    """

    model: str
    max_length: int
    task: str
    rows: int
    p50: int
    p95: int
    max: int
    total: int
    truncated: int
    answer_lost: int
    rewritten: int
    refused: int
    default_template: bool
    histogram: Histogram
    choices: list[Choice]


class Split(TypedDict):
    """How many rows to hold out, as a spec says it, and why. `twins` of them are also among the rest."""

    rows: int
    eval_fraction: float
    eval_max_rows: int
    reason: str
    twins: int


AT_ONCE = "doctor"  # in an import's summary, of a small file: {version of Loradeck, report}


class Report(TypedDict):
    """All that was found. `counts` are of problems by kind; `problems` and `duplicate_rows` name the first of them."""

    format: str | None
    kind: str | None
    recognised_by: list[str]
    rows: int
    unusable: int
    problems: list[Problem]
    counts: dict[str, int]
    duplicates: int
    duplicate_rows: list[Duplicate]
    tokens: Tokens | None
    split: Split | None


def stops_training(kind: str) -> bool:
    """Whether a row with such a problem cannot be trained on."""
    return kind not in USABLE
