"""What a child can do on this machine: measured by doing it on a few numbers, in a process of its own or by a job.

`python -m worker.capabilities` prints one JSON line. A spare child does not measure it: bitsandbytes costs 1.3 s and
45 MB in every process that imports it, and on a GPU an idle process would hold memory of the device.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from app.core.errors import InvalidInput
from app.core.jobs.capabilities import BITSANDBYTES, capability_faults, needs_bitsandbytes

if TYPE_CHECKING:
    from app.core.jobs.spec import TrainingSpec  # a light child has no use for pydantic

_LOOKUPS = {  # functions that remember whether the package is there
    "peft.import_utils": ("is_bnb_available", "is_bnb_4bit_available"),
    "transformers.utils.import_utils": ("is_bitsandbytes_available",),
}
_MAX_REASON_CHARACTERS = 300
_PAGED_ELEMENTS = 200_000  # smaller states are not paged


def hide_bitsandbytes() -> None:
    """Keep peft from importing the package into a process that may never need it. Before peft is imported."""
    sys.modules.setdefault(BITSANDBYTES, None)  # type: ignore[arg-type]  # as documented for sys.modules


def hide_torch() -> None:
    """Keep transformers from importing torch into a light child: 2 s and 120 MB. Before transformers is imported."""
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # it would advise to install torch


def hide_kernels() -> None:
    """Keep transformers and bitsandbytes from fetching compiled code of the hub, where somebody installed `kernels`."""
    sys.modules.setdefault("kernels", None)  # type: ignore[arg-type]


def import_bitsandbytes() -> Any:
    """The package, hidden no more. Raises: ImportError where it is not installed."""
    if sys.modules.get(BITSANDBYTES, sys) is None:
        del sys.modules[BITSANDBYTES]
        for module_name in _LOOKUPS.keys() & sys.modules.keys():
            for function_name in _LOOKUPS[module_name]:
                getattr(sys.modules[module_name], function_name).cache_clear()
    return importlib.import_module(BITSANDBYTES)


def require_capabilities(spec: TrainingSpec) -> None:
    """Measure what the spec needs beyond torch. Raises: InvalidInput where this machine cannot run it."""
    import torch

    if needs_bitsandbytes(spec, on_cuda=torch.cuda.is_available()):
        faults = capability_faults(spec, measure())
        if faults:
            raise InvalidInput(faults)


def measure() -> dict[str, Any]:
    """Versions, the device, and by feature (4bit, 8bit, adamw_8bit, paged) why it `cannot` be used; imports torch."""
    import torch

    cuda = torch.cuda.is_available()
    device = torch.device("cuda:0" if cuda else "cpu")
    features: dict[str, Callable[[Any], None]] = {"4bit": _try_4bit, "8bit": _try_8bit, "adamw_8bit": _try_adamw}
    if cuda:
        features["paged"] = _try_paged
    cannot = {name: reason for name, function in features.items() if (reason := _why_not(function, device))}
    return {
        "torch": torch.__version__,
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if cuda else platform.processor() or None,
        "cuda": torch.version.cuda if cuda else None,
        "bf16": cuda and torch.cuda.is_bf16_supported(including_emulation=False),
        "bitsandbytes": None if "4bit" in cannot else importlib.metadata.version(BITSANDBYTES),
        "paged": cuda and "paged" not in cannot,
        "cannot": cannot,
    }


def _why_not(feature: Callable[[Any], None], device: Any) -> str | None:
    try:
        feature(device)
    except ModuleNotFoundError as error:
        return f"{error.name} is not installed"
    except Exception as error:  # noqa: BLE001 - whatever the library says is the finding
        return " ".join(f"{type(error).__name__}: {error}".split())[:_MAX_REASON_CHARACTERS]
    return None


def _try_4bit(device: Any) -> None:
    """Quantise a matrix, and multiply by it."""
    import torch

    bnb = import_bitsandbytes()
    weight, rows = _numbers(device)
    packed, state = bnb.functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    restored = bnb.functional.dequantize_4bit(packed, state)
    _require_close(restored, weight, 0.2, "a matrix in NF4")
    _require_close(bnb.matmul_4bit(rows, packed.t(), state), torch.matmul(rows, restored.t()), 0.05, "a product in NF4")


def _try_8bit(device: Any) -> None:
    import torch

    bnb = import_bitsandbytes()
    weight, rows = _numbers(device)
    layer = bnb.nn.Linear8bitLt(64, 64, bias=False, has_fp16_weights=False, threshold=6.0)
    layer.weight = bnb.nn.Int8Params(weight.cpu(), requires_grad=False, has_fp16_weights=False)
    _require_close(layer.to(device)(rows), torch.matmul(rows, weight.t()), 0.05, "a product in 8 bits")


def _try_adamw(device: Any) -> None:
    _step(import_bitsandbytes().optim.AdamW8bit, device, 8192)


def _try_paged(device: Any) -> None:
    _step(import_bitsandbytes().optim.PagedAdamW8bit, device, _PAGED_ELEMENTS)


def _step(optimizer: Callable[..., Any], device: Any, elements: int) -> None:
    """One step along a gradient of ones must lower every weight."""
    import torch

    weight = torch.nn.Parameter(torch.zeros(elements, device=device))
    weight.grad = torch.ones_like(weight)
    optimizer([weight], lr=1e-3).step()
    if not bool((weight < 0).all()):
        raise RuntimeError("a step of the optimizer did not move every weight")


def _numbers(device: Any) -> tuple[Any, Any]:
    """A weight (64, 64) and rows (4, 64), the same each time."""
    import torch

    numbers = torch.randn(68, 64, generator=torch.Generator().manual_seed(0)).to(device)
    return numbers[:64].contiguous(), numbers[64:].contiguous()


def _require_close(got: Any, wanted: Any, tolerance: float, what: str) -> None:
    """Raises: RuntimeError beyond `tolerance`, a share of the root mean square. A NaN is never within it."""
    off = float((got.float() - wanted.float()).square().mean().sqrt() / wanted.float().square().mean().sqrt())
    if not off <= tolerance:
        raise RuntimeError(f"{what} is {off:.0%} off")


def main() -> int:
    os.nice(19)  # a job, or a spare child's imports, go first
    sys.stdout.write(json.dumps(measure()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
