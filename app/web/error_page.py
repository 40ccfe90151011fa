"""What the page of an error says beside the error's own message: a heading, and what can be done about it."""

from __future__ import annotations

HEADINGS = {
    400: "Bad request",
    401: "Not logged in",
    403: "Not allowed",
    404: "Not found",
    405: "Not possible here",
    409: "Not possible now",
    413: "Too large",
    422: "Not valid",
    429: "Too many requests",
    503: "Busy",
    507: "The disk is full",
}
_OTHER = "Something went wrong"
_ADVICE = {
    400: "Go back and try again. A link that leads here is out of date, or was cut off.",
    403: "Open the page anew and try again from there.",
    404: "It may have been deleted since, or the address is misspelt. Look for it by its name or number.",
    405: "An action's address cannot be opened as a page. Go back, and press its button.",
    409: "Nothing was changed. Something has moved on since the page was read: look at it anew, then choose again.",
    413: "Split the file, or raise the limit: LORADECK_MAX_UPLOAD_BYTES.",
    422: "Nothing was stored. Go back, mend what is named above, and send it again.",
    503: "Nothing was lost. Wait a few seconds, then load the page again.",
    507: "Nothing was half-written. Delete checkpoints or merged models that nobody needs, on the page of artifacts.",
}
_FALLBACK = (
    "A change is stored whole or not at all. The log of `loradeck serve` holds the cause, with the time and the "
    "address of this page; `loradeck doctor` checks the installation. Jobs that run go on."
)


def heading_of(status: int, code: str) -> str:
    """The heading of an error's page."""
    return "The database is damaged" if code == "database_damaged" else HEADINGS.get(status, _OTHER)


def advice_of(status: int, advice: str | None) -> str:
    """The error's own advice, else that of its status."""
    return advice or _ADVICE.get(status, _FALLBACK)
