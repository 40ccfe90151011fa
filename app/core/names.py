"""Names that users give to base models and datasets. A reference is looked up as a name first, then as an id."""

from __future__ import annotations

import re

from app.core.errors import Conflict, Fault, InvalidInput

MAX_NAME = 120  # characters
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_hub_id(reference: str) -> bool:
    """Whether it reads as `owner/name`, as models and datasets of the Hugging Face hub are named."""
    return _HUB_ID.fullmatch(reference) is not None


def clean_name(name: str, thing: str) -> str:
    """The name with its spaces made single; `thing` is what it names (`dataset`), for the message.

    Raises: InvalidInput on `name`, also for digits alone: such a name would hide the row that has it as its id.
    """
    cleaned = " ".join(name.split())[:MAX_NAME].rstrip()
    if not cleaned or not cleaned.isprintable():
        raise InvalidInput(f"A {thing} needs a printable name.", field="name")
    if cleaned.isdecimal():
        message = f"{cleaned!r} is a number, as ids are."
        raise InvalidInput([Fault("name", message, advice=f"Give the {thing} a name with a letter in it.")])
    return cleaned


def name_taken(name: str, thing: str) -> Conflict:
    """The error of a name that another row has."""
    return Conflict(f"A {thing} named {name!r} is registered already.", advice="Give another name.", field="name")
