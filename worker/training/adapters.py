"""LoRA beside a model's frozen weights: wrapped, saved so that it fits the original base model, and loaded whole."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import save_file

from app.core.errors import InvalidInput, ModelLoadError
from app.core.jobs.spec import TrainingSpec
from worker.training.lora_faults import lora_faults, starts_from_weights

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


def base_stays(spec: TrainingSpec) -> bool:
    """Whether what the training starts as is there again, at any time, with the adapter switched off."""
    new = spec.init_adapter is None
    return new and spec.method != "full" and spec.bias == "none" and not starts_from_weights(spec)


def write_adapter(model: Any, folder: Path, initial: Mapping[str, torch.Tensor]) -> None:
    """Write weights and configuration such that they fit the base model as it lies on disk.

    `initial` is what `initial_lora` returned. PiSSA and OLoRA train W' + s·B·A with W' = W - s·B₀·A₀, which is
    W + s·[B, -B₀]·[A; A₀]: an adapter of twice the rank. Source: https://arxiv.org/abs/2404.02948.
    """
    # An embedding is saved where modules_to_save names it; "auto" would look the base model up on the hub.
    if not initial:
        model.save_pretrained(folder, save_embedding_layers=False)
        _sort_modules(folder / CONFIG)
        return
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    wide = {name: _widened(name, tensor, initial.get(name)) for name, tensor in state.items()}
    save_file(wide, folder / WEIGHTS, metadata={"format": "pt"})
    _widened_config(model.peft_config["default"]).save_pretrained(str(folder))
    _sort_modules(folder / CONFIG)


def _sort_modules(path: Path) -> None:
    """peft writes a set in the order that its process happens to have; the same run is to leave the same bytes."""
    config = json.loads(path.read_text(encoding="utf-8"))
    modules = config["target_modules"]
    config["target_modules"] = sorted(modules) if isinstance(modules, list) else modules
    path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def initial_lora(model: Any, spec: TrainingSpec) -> dict[str, torch.Tensor]:
    """A and B as they begin, by their names in the saved file, where the base weights gave up their share; else {}."""
    if not starts_from_weights(spec):
        return {}
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {n: t.detach().cpu().clone() for n, t in state.items() if ".lora_A." in n or ".lora_B." in n}


def _widened(name: str, tensor: torch.Tensor, start: torch.Tensor | None) -> torch.Tensor:
    """[A; A₀] of shape (2r, in), or [B, -B₀] of shape (out, 2r); another tensor as it is."""
    if start is None:
        return tensor.contiguous()
    start = start.to(tensor.device)
    return torch.cat((tensor, start), dim=0) if ".lora_A." in name else torch.cat((tensor, -start), dim=1)


def _widened_config(config: LoraConfig) -> LoraConfig:
    """Twice the rank at the same scale, which is alpha / r, or alpha / sqrt(r) where it is rank-stabilised."""
    wide: Any = copy.deepcopy(config)
    factor = 2**0.5 if wide.use_rslora else 2
    wide.r, wide.lora_alpha = 2 * wide.r, factor * wide.lora_alpha
    wide.rank_pattern = {name: 2 * rank for name, rank in wide.rank_pattern.items()}
    wide.alpha_pattern = {name: factor * alpha for name, alpha in wide.alpha_pattern.items()}
    wide.init_lora_weights, wide.inference_mode = True, True
    widened: LoraConfig = wide
    return widened


def add_lora(model: Any, spec: TrainingSpec, base_model_name: str, revision: str | None = None) -> Any:
    """Wrap the model so that only its adapter learns, in fp32. Raises: InvalidInput with every field that cannot be.

    The saved configuration names the base model by its hub id and commit, so that peft finds it by itself; else as it
    is registered, not by the folder that it lies in here.
    """
    faults = lora_faults(model, spec)
    if faults:
        raise InvalidInput(faults)
    config = _lora_config(spec)
    torch.manual_seed(spec.seed)
    tuned = get_peft_model(model, config)
    config.base_model_name_or_path, config.revision = base_model_name, revision
    return tuned


def _lora_config(spec: TrainingSpec) -> LoraConfig:
    start: Any = True if spec.init_lora_weights == "default" else spec.init_lora_weights
    alpha: Any = spec.lora_alpha  # a fraction works: the scale is alpha / r
    with warnings.catch_warnings():  # peft's own conversion cannot widen these; ours can
        warnings.filterwarnings("ignore", "Using Rank-Stabilized LoRA with rank_pattern")
        return LoraConfig(
            task_type="CAUSAL_LM",
            r=spec.r,
            lora_alpha=alpha,
            lora_dropout=spec.lora_dropout,
            target_modules=spec.target_modules,
            use_rslora=spec.use_rslora,
            use_dora=spec.use_dora,
            init_lora_weights=start,
            bias=spec.bias,
            modules_to_save=spec.modules_to_save or None,
            rank_pattern=dict(spec.rank_pattern),
            alpha_pattern=dict(spec.alpha_pattern),
        )


def load_adapter(model: Any, folder: str | Path) -> Any:
    """The base model with a saved adapter. Raises: ModelLoadError where either has a tensor that the other lacks.

    Where the adapter brings embeddings for more words than the base model has, the base model gets rows for them.
    """
    weights = Path(folder) / WEIGHTS
    if not weights.is_file():
        raise ModelLoadError(f"{folder} has no {WEIGHTS}.", advice="Run the job again to save it anew.")
    _grow_vocabulary(model, weights)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Found missing adapter keys")  # compared below
        tuned: Any = PeftModel.from_pretrained(model, str(folder))
    config = tuned.peft_config["default"]
    wanted = set(get_peft_model_state_dict(tuned, save_embedding_layers=False))
    differing = sorted(_ours(wanted, tuned) ^ _ours(set(_shapes(weights)), tuned))
    if differing:
        raise ModelLoadError(
            f"The adapter in {folder} does not fit {config.base_model_name_or_path}: {len(differing)} tensors are "
            f"only in one of them, such as {differing[0]}.",
            advice="Load it onto the base model that it was trained on, or use an earlier checkpoint.",
        )
    return tuned


def _ours(names: set[str], tuned: Any) -> set[str]:
    """Without the embeddings that peft saves beside an adapter where it finds that their number has changed."""
    model = tuned.get_base_model()
    shared = {id(p) for m in (model.get_input_embeddings(), model.get_output_embeddings()) if m for p in m.parameters()}
    beside = {name for name, parameter in tuned.named_parameters(remove_duplicate=False) if id(parameter) in shared}
    return names - beside


def _grow_vocabulary(model: Any, weights: Path) -> None:
    """Give embeddings and head as many rows as the adapter has for them; never fewer than they have."""
    embeddings = model.get_input_embeddings()
    name = next(name for name, module in model.named_modules() if module is embeddings)
    had, words = len(embeddings.weight), _shapes(weights).get(f"base_model.model.{name}.weight", (0,))[0]
    if words > had:
        model.resize_token_embeddings(words, mean_resizing=False)


def _shapes(weights: Path) -> dict[str, tuple[int, ...]]:
    """Of a file's tensors, by name."""
    with safe_open(weights, framework="pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no mapping
