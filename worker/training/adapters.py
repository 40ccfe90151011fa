"""LoRA beside a model's frozen weights: wrapped, saved so that it fits the original base model, and loaded whole."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from app.core.errors import Fault, InvalidInput, ModelLoadError
from app.core.jobs.spec import TrainingSpec
from worker.training.model import list_linear_modules

WEIGHTS = "adapter_model.safetensors"


def base_stays(spec: TrainingSpec) -> bool:
    """Whether the base model is there again, at any time, with the adapter switched off."""
    return spec.method != "full" and spec.bias == "none" and not _starts_from_weights(spec)


def _starts_from_weights(spec: TrainingSpec) -> bool:
    """Whether the adapter starts from the base weights, which then give up their share of the sum."""
    return spec.init_lora_weights.startswith(("pissa", "olora"))


def write_adapter(model: Any, folder: Path, initial: Mapping[str, torch.Tensor]) -> None:
    """Write weights and configuration such that they fit the base model as it lies on disk.

    `initial` is what `initial_lora` returned. PiSSA and OLoRA train W' + s·B·A with W' = W - s·B₀·A₀, which is
    W + s·[B, -B₀]·[A; A₀]: an adapter of twice the rank. Source: https://arxiv.org/abs/2404.02948.
    """
    # An embedding is saved where modules_to_save names it; "auto" would look the base model up on the hub.
    if not initial:
        model.save_pretrained(folder, save_embedding_layers=False)
        return
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    wide = {name: _widened(name, tensor, initial.get(name)) for name, tensor in state.items()}
    save_file(wide, folder / WEIGHTS, metadata={"format": "pt"})
    _widened_config(model.peft_config["default"]).save_pretrained(str(folder))


def initial_lora(model: Any, spec: TrainingSpec) -> dict[str, torch.Tensor]:
    """A and B as they begin, by their names in the saved file, where the base weights gave up their share; else {}."""
    if not _starts_from_weights(spec):
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


def add_lora(model: Any, spec: TrainingSpec, base_model_name: str) -> Any:
    """Wrap the model so that only its adapter learns, in fp32. Raises: InvalidInput with every field that cannot be.

    The saved configuration names the base model as it is registered, not the folder that it lies in here.
    """
    faults = lora_faults(model, spec)
    if faults:
        raise InvalidInput(faults)
    config = _lora_config(spec)
    torch.manual_seed(spec.seed)
    tuned = get_peft_model(model, config)
    config.base_model_name_or_path = base_model_name
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
    """The base model with a saved adapter. Raises: ModelLoadError where either has a tensor that the other lacks."""
    weights = Path(folder) / WEIGHTS
    if not weights.is_file():
        raise ModelLoadError(f"{folder} has no {WEIGHTS}.", advice="Run the job again to save it anew.")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Found missing adapter keys")  # compared below
        tuned: Any = PeftModel.from_pretrained(model, str(folder))
    config = tuned.peft_config["default"]
    wanted = set(get_peft_model_state_dict(tuned, save_embedding_layers=False))
    differing = sorted(wanted ^ set(load_file(weights)))
    if differing:
        raise ModelLoadError(
            f"The adapter in {folder} does not fit {config.base_model_name_or_path}: {len(differing)} tensors are "
            f"only in one of them, such as {differing[0]}.",
            advice="Load it onto the base model that it was trained on, or use an earlier checkpoint.",
        )
    return tuned


def lora_faults(model: Any, spec: TrainingSpec) -> list[Fault]:
    """What of the spec does not suit the model's modules, each at its field."""
    return [*_target_faults(model, spec), *_whole_module_faults(model, spec), *_pattern_faults(model, spec)] or (
        _rank_faults(model, spec)
    )


def _targets(model: Any, spec: TrainingSpec) -> dict[str, Any]:
    """The targeted linear modules by their full names; the output head is none."""
    names = list_linear_modules(model) if isinstance(spec.target_modules, str) else spec.target_modules
    head = model.get_output_embeddings()
    return {n: m for n, m in model.named_modules() if n.rpartition(".")[2] in names and m is not head}


def _target_faults(model: Any, spec: TrainingSpec) -> Iterable[Fault]:
    known, targets = list_linear_modules(model), spec.target_modules
    unknown = [] if isinstance(targets, str) else [name for name in targets if name not in known]
    if unknown:
        message = f"the model has no linear module named {', '.join(unknown)}; it has {', '.join(known)}"
        yield Fault("target_modules", message, f"Choose from {', '.join(known)}, or all-linear.")


def _whole_module_faults(model: Any, spec: TrainingSpec) -> Iterable[Fault]:
    """Modules trained whole must own weights, be targeted by no LoRA, and share no weight with another module."""
    owners = {n.rpartition(".")[2]: m for n, m in model.named_modules() if any(True for _ in m.parameters(False))}
    targeted = {name.rpartition(".")[2] for name in _targets(model, spec)}
    shared = [model.get_input_embeddings(), model.get_output_embeddings()] if _is_tied(model) else []
    for name in spec.modules_to_save:
        if name not in owners:
            yield Fault("modules_to_save", f"the model has no {name}; it has {', '.join(sorted(owners))}")
        elif also := _also_matched(name, owners, spec):
            yield Fault("modules_to_save", f"{name} would take {also} too: peft matches the ends", f"Name {also} too.")
        elif name in targeted:
            yield Fault("modules_to_save", f"{name} has LoRA already", "Leave it out here or in target_modules.")
        elif any(owners[name] is each for each in shared):
            yield Fault("modules_to_save", f"{name} is tied: embeddings and head share one weight", "Leave it out.")
        elif any(not p.dtype.is_floating_point for p in owners[name].parameters(False)):
            yield Fault("modules_to_save", f"{name} is held quantised and cannot be trained whole", "Leave it out.")


def _also_matched(name: str, owners: Iterable[str], spec: TrainingSpec) -> str:
    """Modules that peft would train along with this one and that the spec does not name, such as every norm."""
    return ", ".join(sorted({each for each in owners if each.endswith(name)} - set(spec.modules_to_save)))


def _is_tied(model: Any) -> bool:
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


def _pattern_faults(model: Any, spec: TrainingSpec) -> Iterable[Fault]:
    """A pattern matches a module's full name from a dot on, as peft matches it.

    A target that the model lacks is a fault of `target_modules` alone, so patterns may name it.
    """
    names = [*_targets(model, spec), *(spec.target_modules if isinstance(spec.target_modules, list) else ())]
    for where, patterns in (("rank_pattern", spec.rank_pattern), ("alpha_pattern", spec.alpha_pattern)):
        for pattern in patterns:
            if not any(re.match(rf"(.*\.)?({pattern})$", name) for name in names):
                known = ", ".join(sorted({name.rpartition(".")[2] for name in names}))
                yield Fault(where, f"{pattern} matches no targeted module; these are {known}")


def _rank_faults(model: Any, spec: TrainingSpec) -> list[Fault]:
    """A start from a weight's main directions has no more of them than the weight has rows or columns."""
    if not _starts_from_weights(spec):
        return []
    smallest = min(min(module.weight.shape) for module in _targets(model, spec).values())
    highest = max([spec.r, *spec.rank_pattern.values()])
    message = f"{spec.init_lora_weights} allows at most {smallest} in this model (got {highest})"
    return [Fault("r", message, "Lower r, or use `init_lora_weights: default`.")] if highest > smallest else []
