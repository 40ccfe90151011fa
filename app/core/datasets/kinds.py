"""What the normalised rows of a dataset are. No table here: who reads rows has no use for the database."""

from __future__ import annotations

from enum import StrEnum


class RowKind(StrEnum):
    """The kind of a dataset's rows."""

    MESSAGES = "messages"  # {"messages": [{role, content}, …]}
    TEXT = "text"  # {"text": "…"}
    PREFERENCE = "preference"  # {"prompt": messages, "chosen": messages, "rejected": messages}
