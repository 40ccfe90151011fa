"""What LoRA's fields name and the loaded model does not have, or cannot do.

Most of it is said when the job is submitted, by `app.core.jobs.modules`, as far as the model's files tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from app.core.errors import Fault
from app.core.jobs.experts import expert_faults
from app.core.jobs.spec import TrainingSpec
from worker.training.model import list_linear_modules


def starts_from_weights(spec: TrainingSpec) -> bool:
    """Whether the adapter starts from the base weights, which then give up their share of the sum."""
    return spec.init_lora_weights.startswith(("pissa", "olora"))


def lora_faults(model: Any, spec: TrainingSpec) -> list[Fault]:
    """What of the spec does not suit the model's modules, each at its field."""
    of_modules = [*_target_faults(model, spec), *_whole_module_faults(model, spec), *_pattern_faults(model, spec)]
    return [*expert_faults(type(model).__name__, spec), *of_modules] or _rank_faults(model, spec)


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
    if not starts_from_weights(spec):
        return []
    smallest = min(min(module.weight.shape) for module in _targets(model, spec).values())
    highest = max([spec.r, *spec.rank_pattern.values()])
    message = f"{spec.init_lora_weights} allows at most {smallest} in this model (got {highest})"
    return [Fault("r", message, "Lower r, or use `init_lora_weights: default`.")] if highest > smallest else []
