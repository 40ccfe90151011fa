"""The one place that decides whether Python code which comes with a model is run in this process.

Whatever loads a model, its configuration or its tokenizer asks here. A process has one job, and that job's model may
have code that an admin has allowed: known by the SHA-256 of each file, so it may also lie in a folder that was made
from that model, such as a merged one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.core.errors import ModelLoadError
from app.core.models.own_code import HOW_TO_ALLOW, CodeFault, needs_code, read_code

NO_CODE = {"local_files_only": True, "trust_remote_code": False}  # of architectures that transformers has itself

_allowed: set[str] = set()  # SHA-256 of files, for the life of this process


def allow_code(payload: Mapping[str, Any]) -> None:
    """Take over what the job's payload says that an admin has allowed, and nothing else."""
    code = payload.get("code") or (payload.get("base_model") or {}).get("code") or {}
    _allowed.clear()
    _allowed.update(code.values())


def asks_for_code(folder: Path) -> bool:
    """Whether the folder's model cannot be loaded without code of its own. Raises: ModelLoadError."""
    try:
        return needs_code(folder)
    except CodeFault as error:
        raise ModelLoadError(str(error), advice="Download the model again.") from error


def may_run_code(folder: str | Path) -> bool:
    """What `trust_remote_code` is for the folder: False where no code is needed.

    Each Python file in the folder is read, as it is now. Raises: ModelLoadError where one is not allowed.
    """
    folder = Path(folder)
    if not asks_for_code(folder):
        return False
    if not _allowed:
        raise ModelLoadError(
            f"{folder} needs Python code of its own (`auto_map`), which nobody has allowed to be run.",
            advice=HOW_TO_ALLOW,
        )
    try:
        code = read_code(folder)
    except CodeFault as error:
        raise ModelLoadError(f"{folder}: {error}", advice="Use another model.") from error
    for file in code.files:
        if file.sha256 not in _allowed:
            raise ModelLoadError(
                f"{folder}: {file.path} is not among the code that was allowed, or has changed since.",
                advice=HOW_TO_ALLOW,
            )
    return True


def from_folder(folder: str | Path) -> dict[str, bool]:
    """How transformers is told to load from a local folder: nothing from elsewhere. Raises: ModelLoadError."""
    return {"local_files_only": True, "trust_remote_code": may_run_code(folder)}
