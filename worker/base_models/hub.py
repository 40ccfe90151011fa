"""Models from the Hugging Face hub: through its ordinary cache, safetensors only, nothing that runs code."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download

from app.core.errors import ModelLoadError
from worker.base_models.checks import INDEX_FILE, SINGLE_FILE, check_config, weight_file_names
from worker.base_models.stages import Stages
from worker.hub import HubKind, explained, fetch_file

_SMALL_FILES = ["*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt", "LICENSE*"]
_SUBFOLDERS = ["*/*"]  # other formats of the same model: onnx/, original/
_MODEL = HubKind(
    "model", ModelLoadError, "has no safetensors weights.", "Choose a copy of the model with .safetensors files."
)


def download_model(hub_id: str, stages: Stages) -> Path:
    """The model's snapshot folder in the hub cache, downloaded where it is not there yet.

    Small files come first, so a model that cannot be used is refused before its weights are downloaded.

    Raises: ModelLoadError, JobCancelled.
    """
    stages.enter("download")
    with explained(_MODEL, hub_id):
        snapshot = Path(snapshot_download(hub_id, allow_patterns=_SMALL_FILES, ignore_patterns=_SUBFOLDERS))
    check_config(snapshot)
    names = weight_file_names(snapshot / INDEX_FILE) if (snapshot / INDEX_FILE).is_file() else (SINGLE_FILE,)
    stages.extend(len(names))
    for name in names:
        fetch_file(_MODEL, hub_id, name, snapshot.name, stages)  # the folder's name is the commit
    return snapshot
