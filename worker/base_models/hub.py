"""Models from the Hugging Face hub: through its ordinary cache, safetensors only, nothing that runs code."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from app.core.errors import ModelLoadError
from worker.base_models.checks import INDEX_FILE, SINGLE_FILE, check_config, weight_file_names
from worker.base_models.stages import Stages

logger = logging.getLogger(__name__)

_SMALL_FILES = ["*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt", "LICENSE*"]
_SUBFOLDERS = ["*/*"]  # other formats of the same model: onnx/, original/
# The hub client's HTTP library has changed before; its base error is what the client's own errors derive from.
_TRANSPORT_ERROR: type[BaseException] = HfHubHTTPError.__bases__[0]


def download_model(hub_id: str, stages: Stages) -> Path:
    """The model's snapshot folder in the hub cache, downloaded where it is not there yet.

    Small files come first, so a model that cannot be used is refused before its weights are downloaded.

    Raises: ModelLoadError, JobCancelled.
    """
    stages.enter("download")
    with _explained(hub_id):
        snapshot = Path(snapshot_download(hub_id, allow_patterns=_SMALL_FILES, ignore_patterns=_SUBFOLDERS))
    check_config(snapshot)
    names = weight_file_names(snapshot / INDEX_FILE) if (snapshot / INDEX_FILE).is_file() else (SINGLE_FILE,)
    stages.extend(len(names))
    for name in names:
        stages.enter("download")
        logger.info("downloading %s of %s", name, hub_id)
        with _explained(hub_id):
            hf_hub_download(hub_id, name, revision=snapshot.name)  # the folder's name is the commit
    return snapshot


@contextmanager
def _explained(hub_id: str) -> Iterator[None]:
    """Turn the hub client's errors into ModelLoadError, each with what to do."""
    try:
        yield
    except HFValidationError as error:
        raise ModelLoadError(f"{hub_id!r} is no hub id: {error}", advice="A hub id reads `owner/name`.") from error
    except GatedRepoError as error:
        raise ModelLoadError(
            f"Access to {hub_id} must be requested on its hub page.",
            advice="Accept its terms there, then set HF_TOKEN to a token of that account for the worker.",
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelLoadError(
            f"The hub has no model {hub_id}, or it is private.",
            advice="Check the spelling; for a private model set HF_TOKEN for the worker.",
        ) from error
    except LocalEntryNotFoundError as error:
        raise ModelLoadError(
            f"The hub cannot be reached, and {hub_id} is not complete in its cache on this machine.",
            advice="Connect the machine, or copy the model here and register its folder.",
        ) from error
    except EntryNotFoundError as error:
        raise ModelLoadError(
            f"{hub_id} has no safetensors weights.", advice="Choose a copy of the model with .safetensors files."
        ) from error
    except (OSError, _TRANSPORT_ERROR) as error:
        raise ModelLoadError(
            f"The download of {hub_id} broke off: {error}", advice="Run it again: it goes on where it stopped."
        ) from error
