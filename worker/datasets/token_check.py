"""Rows under a model: lengths, what is cut, and what the chat template refuses."""

from __future__ import annotations

from typing import Any

from app.core.datasets.formats import Normalised
from app.core.datasets.kinds import RowKind
from app.core.datasets.lines import count_characters
from app.core.datasets.report import ProblemKind, Tokens
from app.core.jobs.spec import parse_spec
from worker.datasets.findings import Findings
from worker.datasets.lengths import TASK_OF, Lengths, answer_lost
from worker.datasets.template_guard import guard_template
from worker.training.data import TemplateMismatch, ensure_chat_template
from worker.training.encoding import TAKE, is_full
from worker.training.tokenizer import load_tokenizer


class TokenCheck:
    """Encodes rows as training does. The task is that of the rows' kind, known with the first."""

    def __init__(self, model: dict[str, Any], max_length: int) -> None:
        """`model` is {name, path}. Raises: ModelLoadError."""
        self._name = model["name"]
        self._max_length = max_length
        self._tokenizer = load_tokenizer(model["path"])
        self._default_template = ensure_chat_template(self._tokenizer)
        guard_template(self._tokenizer, self._name)
        self._lengths: Lengths | None = None
        self._task = ""
        self._put_by: list[tuple[int, Any]] = []  # by their numbers
        self._characters = 0  # of them

    def look_at(self, number: int, row: Normalised, kind: RowKind, findings: Findings) -> None:
        """Put one row by, and encode those put by once they are enough. Raises: TemplateFault, see `encode`."""
        self._lengths = self._lengths or self._begin(kind)
        taken = TAKE[self._task](row)
        self._put_by.append((number, taken))
        self._characters += count_characters(taken)
        if is_full(len(self._put_by), self._characters):
            self.encode(findings)

    def encode(self, findings: Findings) -> None:
        """Encode the rows put by. Raises: TemplateFault where the chat template takes far more than it needs."""
        if self._lengths is None:
            return
        put_by, self._put_by, self._characters = self._put_by, [], 0
        encoded = self._lengths.add([row for _, row in put_by])
        for (number, _), found in zip(put_by, encoded, strict=True):
            if isinstance(found, TemplateMismatch):
                findings.add(number, "", ProblemKind.REFUSED, str(found))
            elif answer_lost(found):
                longest = max(sequence.total_tokens for sequence in found.sequences)
                message = f"nothing of an answer is left within {self._max_length:,} of its {longest:,} tokens"
                findings.add(number, "", ProblemKind.ANSWER_LOST, message)

    def to_json(self) -> Tokens | None:
        """None where no row could be used."""
        if self._lengths is None:
            return None
        default_template = self._default_template and self._task != "text"
        return self._lengths.to_json(self._name, default_template=default_template)

    def _begin(self, kind: RowKind) -> Lengths:
        self._task = TASK_OF[kind]
        asked = {"base_model": self._name, "dataset": "?", "task": self._task, "max_length": self._max_length}
        return Lengths(self._tokenizer, parse_spec(asked))
