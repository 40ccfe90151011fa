"""A folder's model without its weights: its parameters' names and shapes, and which are tied or quantised."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import HfQuantizer
from transformers.quantizers.quantizers_utils import should_convert_module

from worker.artifacts.adapter_tensors import NotStreamable
from worker.artifacts.tensors import Stored, list_tensors
from worker.base_models.checks import check_weights
from worker.training.tokenizer import load_error

_GENERATION = "generation_config.json"


@dataclass(frozen=True, slots=True)
class Skeleton:
    """`model` is on the meta device. `stored` has each of its tensors that lies in the folder's files by its name."""

    model: Any
    stored: dict[str, Stored]
    parameters: frozenset[str]
    tied: dict[str, str]  # of a parameter that shares another one's weight: the other one's name

    def module_of(self, parameter: str) -> Any:
        return self.model.get_submodule(parameter.rpartition(".")[0])

    def is_transposed(self, parameter: str) -> bool:
        """Whether its weight is stored as (in, out)."""
        return isinstance(self.module_of(parameter), Conv1D)

    def quantised(self) -> frozenset[str]:
        """The parameters that transformers holds in few bits where it is told to."""
        kept = HfQuantizer.get_modules_to_not_convert(self.model, None, self.model._keep_in_fp32_modules)
        linear = (n for n, m in self.model.named_modules() if type(m) is torch.nn.Linear or isinstance(m, Conv1D))
        return frozenset(f"{name}.weight" for name in linear if should_convert_module(name, kept))


def build_model(folder: Path) -> Any:
    """The model's modules on the meta device, with the generation config of the folder. Raises: ModelLoadError."""
    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config, trust_remote_code=False)  # type: ignore[no-untyped-call]
        if (folder / _GENERATION).is_file():
            model.generation_config = GenerationConfig.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise load_error("model", folder, error) from error
    return model.eval()


def read_skeleton(model: Any, folder: Path) -> Skeleton:
    """Raises: NotStreamable where names or shapes in the files are not the model's own; ModelLoadError."""
    files = {name: tensor for file in check_weights(folder).files for name, tensor in list_tensors(file).items()}
    _refuse_converted(model, files)
    tied = dict(getattr(model, "all_tied_weights_keys", {}))
    stored = {}
    for name, expected in model.state_dict().items():
        found = _find(model, files, name)
        if found is None and name in tied:
            continue
        if found is None:
            raise NotStreamable(f"the base model's files have no tensor {name}")
        if found.shape != tuple(expected.shape) or found.dtype is None:
            raise NotStreamable(f"the base model's {name} is {found.dtype_name} {list(found.shape)}")
        stored[name] = found
    return Skeleton(model, stored, frozenset(name for name, _ in model.named_parameters(remove_duplicate=False)), tied)


def _find(model: Any, files: dict[str, Stored], name: str) -> Stored | None:
    """By the model's name for it, or without the prefix of its body, as files of GPT-2 have it."""
    return files.get(name) or files.get(name.removeprefix(f"{model.base_model_prefix}."))


def _refuse_converted(model: Any, files: dict[str, Stored]) -> None:
    """Weights that transformers renames, splits or stacks while it loads them are not the model's own."""
    for transform in get_model_conversion_mapping(model):
        used = next((name for name in files if _takes(transform, name)), None)
        if used is not None:
            raise NotStreamable(f"transformers converts {used} while it loads the model")


def _takes(transform: Any, name: str) -> bool:
    renamed, pattern = transform.rename_source_key(name)
    return pattern is not None and (renamed != name or type(transform).__name__ != "WeightRenaming")
