"""Import a base model: convert a GGUF, download from the hub, or check a folder that is used where it lies."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from app.core.errors import ModelLoadError
from app.core.models.own_code import REVISION_FILE
from app.core.paths import write_private
from worker.base_models import gguf
from worker.base_models.checks import check_config
from worker.base_models.hub import download_model
from worker.base_models.publish import link_or_copy, publish_folder
from worker.base_models.stages import Stages
from worker.base_models.summary import summarise
from worker.context import JobContext
from worker.own_code import asks_for_code

logger = logging.getLogger(__name__)


def run_import(context: JobContext) -> dict[str, Any]:
    """Make the model of the payload usable, and return its summary: architecture, parameters, path and the like.

    For a model of the hub `revision` is its commit. Where it needs code, the payload has what is allowed as `code`.

    Payload: model_id, name, source {kind: gguf | folder | hub, path | hub_id}, target (the model's own folder),
    cache (folder of converted models, or null). A folder is used in place; the other kinds fill `target`.

    Raises: ModelLoadError, JobCancelled. Nothing half-written stays behind either.
    """
    source, target = context.payload["source"], Path(context.payload["target"])
    kind = source["kind"]
    if kind == "gguf":
        return _import_gguf(context, Path(source["path"]), target)
    if kind == "folder":
        return _import_folder(context, Path(source["path"]))
    if kind == "hub":
        return _import_hub(context, source["hub_id"], target)
    raise ModelLoadError(f"Unknown kind of source: {kind!r}.", advice="Use gguf, folder or hub.")


def _import_gguf(context: JobContext, file: Path, target: Path) -> dict[str, Any]:
    cache = context.payload.get("cache")
    stages = Stages(context, gguf.STAGES + (2 if cache else 1))
    if cache:
        converted = gguf.find_or_convert(file, Path(cache), stages)
        _place(converted, target, stages)
    else:
        with publish_folder(target) as folder:
            gguf.convert_gguf(file, folder, stages)
    return _summarise(target, stages)


def _import_folder(context: JobContext, folder: Path) -> dict[str, Any]:
    stages = Stages(context, total=2)
    stages.enter("load")
    check_config(folder)
    return _summarise(folder.resolve(), stages)


def _import_hub(context: JobContext, hub_id: str, target: Path) -> dict[str, Any]:
    stages = Stages(context, total=3)
    revision = context.payload.get("revision")
    # An admin can look at the code in the model's own folder, whether it is allowed already or not.
    snapshot = download_model(hub_id, stages, revision, keep_code=lambda found: _publish(found, target))
    _place(snapshot, target, stages)
    return {**_summarise(target, stages), "revision": snapshot.name}  # the folder's name is the commit


def _place(source: Path, target: Path, stages: Stages) -> None:
    stages.enter("save")
    _publish(source, target)


def _publish(source: Path, target: Path) -> None:
    with publish_folder(target) as folder:
        link_or_copy(source, folder)
        if asks_for_code(folder):  # so it is a snapshot of the hub, whose name is the commit
            write_private(folder / REVISION_FILE, source.name)


def _summarise(folder: Path, stages: Stages) -> dict[str, Any]:
    stages.enter("verify")
    summary = summarise(folder)
    stages.finish()
    logger.info("%s: %s with %d parameters", folder, summary["architecture"], summary["parameters"])
    return summary
