"""A folder's model without its weights: its parameters' names and shapes, and which are tied or quantised."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    Chunk,
    Concatenate,
    MergeModulelist,
    SplitModulelist,
    Transpose,
    WeightConverter,
    WeightRenaming,
    apply_converters,
    apply_renamings,
)
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import HfQuantizer
from transformers.quantizers.quantizers_utils import should_convert_module

from worker.artifacts.adapter_tensors import NotStreamable
from worker.artifacts.tensors import Stored, list_tensors
from worker.base_models.checks import check_weights
from worker.own_code import from_folder, may_run_code
from worker.training.tokenizer import load_error

_GENERATION = "generation_config.json"
_MOVES = (Chunk, Concatenate, MergeModulelist, SplitModulelist, Transpose)  # they change no value


@dataclass(frozen=True, slots=True)
class Skeleton:
    """`model` is on the meta device. `stored` has each of its tensors that lies in the folder's files by its name.

    `carried` has, by their names in the files, those that transformers stacks or splits into others while it loads
    them, such as experts.
    """

    model: Any
    stored: dict[str, Stored]
    parameters: frozenset[str]
    tied: dict[str, str]  # of a parameter that shares another one's weight: the other one's name
    carried: dict[str, Stored]
    named: dict[str, str]  # how the files name those of `stored` that transformers renames

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
        config = AutoConfig.from_pretrained(str(folder), **from_folder(folder))
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                config, trust_remote_code=may_run_code(folder)
            )
        if (folder / _GENERATION).is_file():
            model.generation_config = GenerationConfig.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise load_error("model", folder, error) from error
    return model.eval()


def read_skeleton(model: Any, folder: Path) -> Skeleton:
    """Raises: NotStreamable where names or shapes in the files are not the model's own; ModelLoadError."""
    files = {name: tensor for file in check_weights(folder).files for name, tensor in list_tensors(file).items()}
    plain, carried, made = _convert_names(model, files)
    tied = dict(getattr(model, "all_tied_weights_keys", {}))
    stored: dict[str, Stored] = {}
    named: dict[str, str] = {}
    for name, expected in model.state_dict().items():
        known = next((each for each in (name, name.removeprefix(f"{model.base_model_prefix}.")) if each in plain), None)
        if known is None and (name in tied or name in made):
            continue
        if known is None:
            raise NotStreamable(f"the base model's files have no tensor {name}")
        found = files[plain[known]]
        if found.shape != tuple(expected.shape) or found.dtype is None:
            raise NotStreamable(f"the base model's {name} is {found.dtype_name} {list(found.shape)}")
        stored[name] = found
        if plain[known] != known:
            named[name] = plain[known]
    parameters = frozenset(name for name, _ in model.named_parameters(remove_duplicate=False))
    return Skeleton(model, stored, parameters, tied, carried, named)


def _convert_names(model: Any, files: dict[str, Stored]) -> tuple[dict[str, str], dict[str, Stored], frozenset[str]]:
    """By the model's names those in the files; what is carried; and the model's names for what that becomes.

    Raises: NotStreamable where what transformers does to a weight might change its values.
    """
    transforms = get_model_conversion_mapping(model)
    converters = [each for each in transforms if isinstance(each, WeightConverter)]
    renamings = [each for each in transforms if isinstance(each, WeightRenaming)]
    plain: dict[str, str] = {}
    carried: dict[str, Stored] = {}
    made: set[str] = set()
    for file_name, tensor in files.items():
        name = apply_renamings(file_name, renamings)
        for converter in converters:
            becomes, pattern = apply_converters(name, [converter])
            if pattern is None:
                continue
            floats = tensor.dtype is not None and tensor.dtype.is_floating_point
            if not floats or not all(isinstance(each, _MOVES) for each in converter.operations):
                raise NotStreamable(f"transformers converts {file_name} while it loads the model")
            carried[file_name] = tensor
            made.add(becomes)
            break
        else:
            plain[name] = file_name
    return plain, carried, frozenset(made)
