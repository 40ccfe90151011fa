"""Whether what a merge begins with is what it was: the base model as it was trained on, the adapter as it was saved."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.core.errors import MergeError
from app.core.jobs.inputs import find_changes
from worker.artifacts.adapter_tensors import CONFIG
from worker.artifacts.folders import META
from worker.base_models.publish import hash_file


def check_base(base: Mapping[str, Any], files: Mapping[str, Any] | None) -> None:
    """Raises: MergeError where the folder is gone, or does not hold what the adapter was trained on."""
    folder = Path(base["path"])
    if not folder.is_dir():
        raise MergeError(f"The folder of base model {base['name']} is gone ({folder}).", advice="Put it back.")
    changes = ", ".join(find_changes(folder, files)) if files is not None else ""
    if changes:
        raise MergeError(
            f"Base model {base['name']} is not the one that the adapter was trained on ({folder}: {changes}).",
            advice="Put it back as it was. The adapter itself is unharmed and can be downloaded.",
        )


def check_adapter(adapter: Path, base: Mapping[str, Any]) -> dict[str, Any]:
    """Every file as it was saved, and made for this base model; returns its `meta.json`. Raises: MergeError."""
    try:
        meta: dict[str, Any] = json.loads((adapter / META).read_text(encoding="utf-8"))
        files, made_for = meta["files"], meta["base_model"]["name"]
        config = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MergeError(
            f"{adapter} is not a complete adapter: {error}", advice="Run the training job again."
        ) from error
    for file in files:
        path = adapter / file["path"]
        if not path.is_file() or hash_file(path) != file["sha256"]:
            message = f"{path} is not as it was saved: its hash has changed."
            raise MergeError(message, advice="Use an earlier checkpoint, or run the training job again.")
    if base["name"] not in (config["base_model_name_or_path"], made_for):
        raise MergeError(f"The adapter was trained on {made_for}, not on {base['name']}.")
    return meta
