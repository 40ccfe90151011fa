"""What a model folder holds, counted exactly on the meta device: no weight is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from app.core.errors import ModelLoadError
from worker.base_models.checks import check_weights
from worker.own_code import from_folder, may_run_code
from worker.training.model import list_linear_modules
from worker.training.tokenizer import load_tokenizer

_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}


def summarise(folder: Path) -> dict[str, Any]:
    """Architecture, parameters (tied ones counted once), linear modules, dtype and size in bytes.

    Raises: ModelLoadError where weights, tokenizer or architecture cannot be used.
    """
    weights = check_weights(folder)
    model = _empty_model(folder)
    text_config = model.config.get_text_config()
    return {
        "architecture": type(model).__name__,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "path": str(folder),
        "bytes": weights.bytes,
        "linear_modules": list_linear_modules(model),
        "dtype": _DTYPES.get(weights.dtype, weights.dtype.lower()),
        "chat_template": _has_chat_template(folder),
        "max_length": getattr(text_config, "max_position_embeddings", None),
    }


def _empty_model(folder: Path) -> Any:
    factory: Any = AutoModelForCausalLM
    try:
        config = AutoConfig.from_pretrained(folder, **from_folder(folder))
        with torch.device("meta"):
            return factory.from_config(config, trust_remote_code=may_run_code(folder))
    except (ValueError, KeyError, OSError, ImportError) as error:
        raise ModelLoadError(
            f"{folder} is not a causal language model that transformers can load: {_first_line(error)}",
            advice="Choose a decoder model, such as Llama, Qwen, Mistral, Gemma or SmolLM.",
        ) from error


def _has_chat_template(folder: Path) -> bool:
    tokenizer = load_tokenizer(folder)
    if tokenizer.eos_token_id is None:
        raise ModelLoadError(
            f"The tokenizer in {folder} names no end-of-sequence token, so answers could not end.",
            advice="Set eos_token in tokenizer_config.json.",
        )
    return bool(tokenizer.chat_template)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
