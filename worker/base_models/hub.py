"""Models from the Hugging Face hub: through its ordinary cache, safetensors only, code only where one needs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from huggingface_hub import snapshot_download

from app.core.errors import ModelLoadError
from worker.base_models.checks import INDEX_FILE, SINGLE_FILE, check_config, weight_file_names
from worker.base_models.stages import Stages
from worker.hub import HubKind, explained, fetch_file
from worker.own_code import asks_for_code

_SMALL_FILES = ["*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt", "LICENSE*"]
_CODE = ["*.py"]
_SUBFOLDERS = ["*/*"]  # other formats of the same model: onnx/, original/
_MODEL = HubKind(
    "model", ModelLoadError, "has no safetensors weights.", "Choose a copy of the model with .safetensors files."
)


def download_model(
    hub_id: str, stages: Stages, revision: str | None = None, keep_code: Callable[[Path], object] = Path
) -> Path:
    """The model's snapshot folder in the hub cache, downloaded where it is not there yet.

    Small files come first, so a model that cannot be used is refused before its weights are downloaded. `keep_code` is
    called with one that needs Python code of its own before it is asked whether that is allowed.

    Raises: ModelLoadError, JobCancelled.
    """
    stages.enter("download")
    snapshot = _fetch(hub_id, _SMALL_FILES, revision)
    if asks_for_code(snapshot):
        keep_code(_fetch(hub_id, _CODE, snapshot.name))
    check_config(snapshot)
    names = weight_file_names(snapshot / INDEX_FILE) if (snapshot / INDEX_FILE).is_file() else (SINGLE_FILE,)
    stages.extend(len(names))
    for name in names:
        fetch_file(_MODEL, hub_id, name, snapshot.name, stages)  # the folder's name is the commit
    return snapshot


def _fetch(hub_id: str, patterns: list[str], revision: str | None) -> Path:
    with explained(_MODEL, hub_id):
        found = snapshot_download(hub_id, revision=revision, allow_patterns=patterns, ignore_patterns=_SUBFOLDERS)
    return Path(found)
