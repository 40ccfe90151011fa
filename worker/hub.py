"""The Hugging Face hub through its own client and ordinary cache: one file at a time, its errors as sentences."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from huggingface_hub.utils.tqdm import tqdm

from app.core.errors import JobError
from app.core.secrets import SET_HUB_TOKEN
from worker.base_models.stages import Stages

logger = logging.getLogger(__name__)

# The hub client's HTTP library has changed before; its base error is what the client's own errors derive from.
TRANSPORT_ERROR: type[BaseException] = HfHubHTTPError.__bases__[0]


@dataclass(frozen=True, slots=True)
class HubKind:
    """What is fetched: the hub's word for it, the error that is raised, what to say of a file that is not there."""

    name: Literal["model", "dataset"]
    error: type[JobError]
    missing: str  # after the hub id
    missing_advice: str


def fetch_file(kind: HubKind, hub_id: str, name: str, commit: str, stages: Stages) -> Path:
    """The file's path in the hub's cache, downloaded where it is not there yet; a broken download is taken up again.

    Raises: JobCancelled, also in mid-file; the kind's error.
    """
    stages.enter("download")
    logger.info("downloading %s of %s", name, hub_id)
    with explained(kind, hub_id):
        watch = _watched_by(stages)
        return Path(hf_hub_download(hub_id, name, repo_type=kind.name, revision=commit, tqdm_class=watch))


def _watched_by(stages: Stages) -> type[tqdm]:
    """A progress bar that shows nothing: the client tells it of every piece, which is where a cancel takes effect."""

    class Watch(tqdm):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{**options, "disable": True})  # type: ignore[no-untyped-call]

        def update(self, count: float | None = 1) -> bool | None:
            stages.check_stop()
            shown: bool | None = super().update(count)
            return shown

    return Watch


@contextmanager
def explained(kind: HubKind, hub_id: str) -> Iterator[None]:
    """Turn the hub client's errors into the kind's error, each with what to do."""
    try:
        yield
    except HFValidationError as error:
        raise kind.error(f"{hub_id!r} is no hub id: {error}", advice="A hub id reads `owner/name`.") from error
    except GatedRepoError as error:
        raise kind.error(
            f"Access to {hub_id} must be requested on its hub page.",
            advice=f"Accept its terms there, then store a token of that account. {SET_HUB_TOKEN}",
        ) from error
    except RepositoryNotFoundError as error:
        raise kind.error(
            f"The hub has no {kind.name} {hub_id}, or it is private.",
            advice=f"Check the spelling; a private {kind.name} needs a token of who may read it. {SET_HUB_TOKEN}",
        ) from error
    except LocalEntryNotFoundError as error:
        raise kind.error(
            f"The hub cannot be reached, and {hub_id} is not complete in its cache on this machine.",
            advice=f"Connect the machine, or copy the {kind.name} here and register it from there.",
        ) from error
    except EntryNotFoundError as error:
        raise kind.error(f"{hub_id} {kind.missing}", advice=kind.missing_advice) from error
    except (OSError, TRANSPORT_ERROR) as error:
        raise kind.error(
            f"The download of {hub_id} broke off: {error}", advice="Run it again: it goes on where it stopped."
        ) from error
