"""What the worker's children can do on this machine, as they measured it, and what of a spec they cannot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from app.core.errors import Fault

if TYPE_CHECKING:
    from app.core.jobs.spec import TrainingSpec

BITSANDBYTES = "bitsandbytes"
# Where no CUDA device can page memory, the optimizer that holds the same state without paging.
WITHOUT_PAGING = {"paged_adamw_8bit": "adamw_8bit", "paged_adamw_32bit": "adamw_torch"}


def effective_optim(optim: str, *, on_cuda: bool) -> str:
    """The optimizer that a run on such a device really uses."""
    return optim if on_cuda else WITHOUT_PAGING.get(optim, optim)


def needs_bitsandbytes(spec: TrainingSpec, *, on_cuda: bool) -> bool:
    """Whether a run with this spec imports bitsandbytes at all."""
    return spec.method == "qlora" or "bit" in effective_optim(spec.optim, on_cuda=on_cuda)


def capability_faults(spec: TrainingSpec, capabilities: Mapping[str, Any] | None) -> list[Fault]:
    """What the worker has said that it cannot run, each at its field; nothing where it has not said anything yet."""
    cannot: Mapping[str, str] = (capabilities or {}).get("cannot") or {}
    optim = effective_optim(spec.optim, on_cuda=bool((capabilities or {}).get("cuda")))
    checks = [
        ("method", spec.method == "qlora" and not spec.load_in_8bit, "4bit", "qlora", "Use `method: lora`."),
        ("load_in_8bit", spec.method == "qlora" and spec.load_in_8bit, "8bit", "8-bit qlora", "Use `method: lora`."),
        ("optim", optim == "adamw_8bit", "adamw_8bit", spec.optim, "Use `optim: adamw_torch`."),
        ("optim", optim.startswith("paged"), "paged", spec.optim, "Use `optim: adamw_torch`."),
    ]
    return [
        Fault(field, f"{what} cannot run on the worker's machine: {cannot[feature]}", advice)
        for field, wanted, feature, what, advice in checks
        if wanted and feature in cannot
    ]


def describe_capabilities(capabilities: Mapping[str, Any] | None) -> str:
    """One line for people."""
    if capabilities is None:
        return "not known yet: no worker has said what it can do"
    if "problem" in capabilities:
        return f"not known: {capabilities['problem']}"
    where = capabilities["device_name"] or capabilities["device"]
    cannot: Mapping[str, str] = capabilities["cannot"]
    parts = [
        f"{where}, torch {capabilities['torch']}" + (f" (CUDA {capabilities['cuda']})" if capabilities["cuda"] else ""),
        f"bf16 {'yes' if capabilities['bf16'] else 'no'}",
        f"bitsandbytes {capabilities['bitsandbytes'] or 'not usable'}",
        f"paged optimizers {'yes' if capabilities['paged'] else 'no'}",
        *(f"no {feature}: {reason}" for feature, reason in cannot.items()),
    ]
    return "; ".join(parts)
