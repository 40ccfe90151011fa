"""What LoRA's fields name and the base model does not have, as far as its files tell before it is loaded.

What stands there and cannot be told here (an expression, a module under another name than in the files, weights held
quantised) is found when the job starts, by `worker.training.lora_faults`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from app.core.errors import Fault
from app.core.jobs.experts import expert_faults
from app.core.jobs.spec import TrainingSpec
from app.core.models.inspect import read_shapes
from app.core.models.models import BaseModel, ModelStatus

_PLAIN = re.compile(r"[\w.\\-]+")  # no repetition, so matching it takes no time
_EMBEDDINGS = {"embed_tokens", "wte", "embed_in", "word_embeddings"}
_HEADS = {"lm_head", "embed_out"}


def module_faults(spec: TrainingSpec, model: BaseModel) -> list[Fault]:
    """Each at its field. Raises: InvalidInput where the model's files cannot be read."""
    if spec.method == "full":
        return []
    return [
        *_target_faults(spec, model),
        *expert_faults(model.architecture, spec),
        *_pattern_faults(spec, model),
        *_whole_module_faults(spec, model),
    ]


def _target_faults(spec: TrainingSpec, model: BaseModel) -> list[Fault]:
    """Modules that are named are checked before anything is queued, so the model's list must be known by then."""
    if spec.target_modules == "all-linear":
        return []
    if not spec.target_modules:
        return [Fault("target_modules", "is empty; name modules, or all-linear")]
    if not model.linear_modules and model.status != ModelStatus.READY:
        message = f"cannot be checked: the modules of {model.name} are not known before it is imported"
        advice = "Use all-linear; or add the model first (`loradeck models add`), and submit once its import is done."
        return [Fault("target_modules", message, advice)]
    unknown = [name for name in spec.target_modules if name not in model.linear_modules]
    known = ", ".join(model.linear_modules)
    return [Fault("target_modules", f"unknown {', '.join(unknown)}; {model.name} has: {known}")] if unknown else []


def _targets(spec: TrainingSpec, model: BaseModel) -> Sequence[str]:
    return model.linear_modules if isinstance(spec.target_modules, str) else spec.target_modules


def _pattern_faults(spec: TrainingSpec, model: BaseModel) -> Iterator[Fault]:
    """A target that the model lacks is a fault of `target_modules` alone, so patterns may name it."""
    targets = _targets(spec, model)
    for field, patterns in (("rank_pattern", spec.rank_pattern), ("alpha_pattern", spec.alpha_pattern)):
        for pattern in patterns if targets else ():
            if _PLAIN.fullmatch(pattern) and not any(_may_match(pattern, name) for name in targets):
                message = f"{pattern} matches no targeted module; these are {', '.join(targets)}"
                yield Fault(field, message, "peft matches a whole name, or its end from a dot on.")


def _may_match(pattern: str, name: str) -> bool:
    """Whether the pattern, or what follows one of its dots, is a module's own name."""
    ends = [pattern, *(pattern[dot.end() :] for dot in re.finditer(r"\.", pattern))]
    return any(re.fullmatch(end, name) for end in ends if end)


def _whole_module_faults(spec: TrainingSpec, model: BaseModel) -> Iterator[Fault]:
    if not spec.modules_to_save:
        return
    owners, targets = _weight_owners(model), _targets(spec, model)
    tied = bool(owners) and not owners & _HEADS
    for name in spec.modules_to_save:
        also = sorted({each for each in owners if each.endswith(name)} - set(spec.modules_to_save))
        if name in targets:
            yield Fault("modules_to_save", f"{name} has LoRA already", "Leave it out here or in target_modules.")
        elif tied and name in _HEADS | _EMBEDDINGS:
            yield Fault("modules_to_save", f"{name} is tied: embeddings and head share one weight", "Leave it out.")
        elif owners and name not in owners:
            yield Fault("modules_to_save", f"{model.name} has no {name}; it has {', '.join(sorted(owners))}")
        elif also:
            matched = ", ".join(also)
            message = f"{name} would take {matched} too: peft matches the ends"
            yield Fault("modules_to_save", message, f"Name {matched} too.")


def _weight_owners(model: BaseModel) -> set[str]:
    """Leaf names of the modules that own weights; none where the files do not tell.

    A model of experts or of several parts is loaded under other names than its files have.
    """
    if model.path is None or not (model.architecture or "").endswith("ForCausalLM"):
        return set()
    tensors = [name for shard in sorted(Path(model.path).glob("*.safetensors")) for name in read_shapes(shard)]
    if any(".experts." in name for name in tensors):
        return set()
    return {name.rpartition(".")[0].rpartition(".")[2] for name in tensors}
