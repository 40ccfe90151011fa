"""What goes wrong with an upload, as sentences: what happened, what the hub holds now, what to do."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from app.core.errors import AppError, JobCancelled, JobError
from app.core.secrets import SET_HUB_TOKEN
from worker.hub import TRANSPORT_ERROR

logger = logging.getLogger(__name__)

_WRITE = "Store a token with the right to write to it (hub page: Settings, Access Tokens). "


class HubUploadError(JobError):
    """The upload to the hub failed."""

    code = "hub_upload"


class NotSent(StrEnum):
    """What the hub holds of it where an upload ends before its end."""

    UNCHANGED = "Nothing was changed on the hub."
    CREATED = "The repository was created and is empty: the same upload goes on there."
    UNCLEAR = "Whether the hub has taken the commit is not known: the same upload finds out."


@contextmanager
def explained(repo: str, state: NotSent) -> Iterator[None]:
    """Turn the client's errors into HubUploadError, with what the hub holds then."""
    try:
        yield
    except Exception as error:
        told = _innermost(error)
        if isinstance(told, JobCancelled):  # in mid-file too
            logger.info("%s: %s", repo, state)
        if isinstance(told, AppError):
            raise told from None
        message, advice = _explain(repo, told)
        raise HubUploadError(f"{message} {state}", advice=advice) from error


def _innermost(error: BaseException) -> BaseException:
    """The client wraps what a thread of its raises."""
    kinds = (JobCancelled, HubUploadError, HfHubHTTPError, TRANSPORT_ERROR, OSError)
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, kinds):
            return found
        found = found.__cause__ or found.__context__
    return error


def _explain(repo: str, error: BaseException) -> tuple[str, str]:
    """Message and advice."""
    if isinstance(error, HfHubHTTPError):
        return _explain_status(repo, error.response.status_code, error)
    if isinstance(error, HFValidationError):
        return f"{repo!r} is no repository's name: {error}.", "Write it as `owner/name`."
    if isinstance(error, TRANSPORT_ERROR | OSError):
        return f"The connection to the hub broke off: {_short(error)}.", "Check the network, then upload again."
    return f"The hub did not take it: {_short(error)}.", "Upload again; if it happens again, the log says more."


def _explain_status(repo: str, status: int, error: HfHubHTTPError) -> tuple[str, str]:
    said = f" It says: {error.server_message}." if error.server_message else ""
    owner = repo.partition("/")[0]
    if status == 401:
        return (
            f"The hub does not accept the token (401): it is wrong or was revoked.{said}",
            f"Set another. {SET_HUB_TOKEN}",
        )
    if status == 403:
        message = f"The token has no right to write to {repo} (403).{said}"
        return message, f"{_WRITE}{owner} must be your account, or an organization in which you may write."
    if status == 404:
        return f"The hub knows no {repo} that this token may write to (404).{said}", f"{_WRITE}Check the spelling, too."
    if status == 413:
        return (
            f"The hub refuses files of this size (413).{said}",
            "Its page on storage limits says what an account has.",
        )
    if status == 429:
        wait = error.response.headers.get("Retry-After")
        return (
            f"The hub takes no more requests for now (429).{said}",
            f"Upload again in {wait or 'a few hundred'} seconds.",
        )
    if status >= 500:
        return (
            f"The hub has a fault of its own ({status}).{said}",
            "Upload again later; status.huggingface.co says more.",
        )
    return (
        f"The hub refused the upload ({status}): {error.server_message or _short(error)}.",
        "Mend that, then upload again.",
    )


def _short(error: BaseException) -> str:
    """Its first line; an address in it keeps its host alone, since those of uploads are signed."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return line.partition("?")[0][:300].rstrip(".")
