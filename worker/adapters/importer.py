"""Take in an adapter that was trained elsewhere. No torch, no database, no network; nothing half-written stays."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from app.core.adapters.fields import CONFIG, WEIGHTS, spec_fields
from app.core.artifacts.manifest import hash_file
from worker.adapters.checks import read_config, require_base, require_fit
from worker.adapters.private import forget_paths, public_name
from worker.adapters.unpack import WANTED, source_bytes, unpack
from worker.artifacts.folders import folder_bytes, publish_artifact
from worker.base_models.stages import Stages
from worker.context import JobContext

logger = logging.getLogger(__name__)

_TOKENIZER = WANTED - {CONFIG, WEIGHTS, "README.md", "LICENSE"}
_FILES_BYTES = 32 << 20


def run_adapter_import(context: JobContext) -> dict[str, Any]:
    """Write the job's `adapter` folder; returns {adapter_bytes, tensors, r, trained_on, fields}: the last of a spec.

    Payload: source (a zip or a folder), uploaded (it is ours, and goes), base_model {name, path, hub_id}, spec. The
    adapter's files then name the base as it is registered here, and no folder of the machine that they come from.
    Raises: AdapterError with the reason, DiskFull, JobCancelled.
    """
    source, base, stages = Path(context.payload["source"]), context.payload["base_model"], Stages(context, 3)
    target = context.folder / "adapter"
    meta: dict[str, Any] = {"kind": "adapter", "base_model": {"name": base["name"]}, "spec": context.payload["spec"]}
    try:
        stages.enter("load")
        with publish_artifact(target, meta, 2 * source_bytes(source) + _FILES_BYTES) as folder:
            unpack(source, folder, stages.check_stop)
            config = read_config(folder)
            named = str(config["base_model_name_or_path"])
            require_base(config, base)
            stages.enter("verify")
            tensors = require_fit(folder, config, Path(base["path"]))
            meta["imported"] = {"trained_on": public_name(named), "sha256": hash_file(folder / WEIGHTS)}
            _name_base(folder, config, base["name"])
            forget_paths(folder, named, base["name"])
            _complete_tokenizer(folder, Path(base["path"]))
            stages.enter("save")
    finally:
        if context.payload.get("uploaded", True):
            shutil.rmtree(source.parent, ignore_errors=True)
    stages.finish()
    context.spool.artifact("adapter", "adapter")
    logger.info("%d tensors of rank %s fit %s", tensors, config.get("r"), base["name"])
    return {
        "adapter_bytes": folder_bytes(target),
        "tensors": tensors,
        "r": config.get("r"),
        "trained_on": meta["imported"]["trained_on"],
        "fields": spec_fields(config),
    }


def _name_base(folder: Path, config: dict[str, Any], name: str) -> None:
    text = json.dumps({**config, "base_model_name_or_path": name}, indent=2, sort_keys=True)
    (folder / CONFIG).write_text(text, encoding="utf-8")


def _complete_tokenizer(folder: Path, base: Path) -> None:
    """An adapter that was saved without one answers with its base's."""
    if any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        return
    for name in sorted(_TOKENIZER):
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)
