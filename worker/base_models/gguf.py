"""From a GGUF file to a plain bf16 safetensors model folder."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from app.core.errors import ModelLoadError
from app.core.models.gguf_header import read_header
from worker.base_models.gguf_tokenizer import restore_splitting
from worker.base_models.publish import hash_file, hold_lock, make_read_only, publish_folder
from worker.base_models.stages import Stages
from worker.own_code import NO_CODE

logger = logging.getLogger(__name__)

STAGES = 5  # hash, read the tokenizer, read the weights, write, verify
_FORMAT = 2  # raise it when a conversion writes other files than before: a cached model is then made anew
_MAGIC = b"GGUF"


def convert_gguf(file: Path, folder: Path, stages: Stages) -> None:
    """Write `file` into the empty `folder` as safetensors, tokenizer, chat template and generation config.

    Raises: ModelLoadError, JobCancelled.
    """
    digest = hash_gguf(file, stages)
    write_converted(file, digest, folder, stages)


def find_or_convert(file: Path, cache: Path, stages: Stages) -> Path:
    """The converted model in the per-user `cache`, named by the file's content. Raises: ModelLoadError, JobCancelled.

    Of several processes that ask at once, one converts and the others wait.
    """
    digest = hash_gguf(file, stages)
    converted = cache / "models" / f"{digest[:16]}-v{_FORMAT}"
    with hold_lock(converted.with_name(f"{converted.name}.lock"), stages.check_stop):
        if converted.is_dir():
            logger.info("%s was converted before: %s", file.name, converted)
        else:
            with publish_folder(converted) as folder:
                write_converted(file, digest, folder, stages)
                make_read_only(folder)
    return converted


def hash_gguf(file: Path, stages: Stages) -> str:
    """SHA-256 of the file. Raises: ModelLoadError where it is no GGUF."""
    stages.enter("load")
    if not file.is_file():
        raise ModelLoadError(f"There is no file {file}.", advice="Give the path of a .gguf file.")
    with file.open("rb") as opened:
        if opened.read(len(_MAGIC)) != _MAGIC:
            raise ModelLoadError(f"{file} is not a GGUF file.", advice="Give a .gguf file.")
    return hash_file(file)


def write_converted(file: Path, digest: str, folder: Path, stages: Stages) -> None:
    """Read, write, verify. Raises: ModelLoadError, JobCancelled."""
    stages.enter("load")
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, **NO_CODE)
    restore_splitting(tokenizer, read_header(file).metadata)
    stages.enter("convert")
    model = dense_model(file)
    tokenizer.model_max_length = model.config.max_position_embeddings
    stages.enter("save")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "meta.json").write_text(json.dumps(_meta(file, digest), indent=2) + "\n", encoding="utf-8")
    stages.enter("verify")
    verify_converted(folder, model, tokenizer)


def dense_model(file: Path) -> Any:
    """The GGUF's weights in bf16, as a plain model.

    Unpacking must be asked for: by default transformers may keep the blocks, and such a model cannot be saved.
    """
    model = AutoModelForCausalLM.from_pretrained(
        file.parent,
        gguf_file=file.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
        **NO_CODE,
    )
    vars(model.config).pop("_model_name_or_path", None)  # the GGUF's title, which is no path
    return model


def verify_converted(folder: Path, model: Any, tokenizer: Any) -> None:
    """Load the folder as anyone would and compare. Raises: ModelLoadError."""
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", output_loading_info=True, **NO_CODE)
    reloaded, info = loaded
    again = AutoTokenizer.from_pretrained(folder, **NO_CODE)
    differences = [name for name in ("missing_keys", "unexpected_keys", "mismatched_keys") if info[name]]
    expected = model.state_dict()
    differences += [name for name, tensor in reloaded.state_dict().items() if not torch.equal(tensor, expected[name])]
    if again.chat_template != tokenizer.chat_template:
        differences.append("chat template")
    if again.eos_token_id != tokenizer.eos_token_id:
        differences.append("end-of-sequence token")
    if differences:
        raise ModelLoadError(
            f"The converted model does not load back as it was written: {', '.join(differences[:5])}.",
            advice="Check the disk's free space and health, then register the model again.",
        )


def _meta(file: Path, digest: str) -> dict[str, Any]:
    return {
        "kind": "base_model",
        "source": {"kind": "gguf", "file": file.name, "sha256": digest},
        "format": _FORMAT,
        "versions": {"transformers": transformers.__version__, "torch": torch.__version__},
    }
