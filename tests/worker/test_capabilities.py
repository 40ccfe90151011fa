"""What a child can do is measured by doing it; a job that cannot run says so before it loads anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from app.core.errors import InvalidInput
from app.core.jobs.capabilities import capability_faults
from app.core.jobs.spec import parse_spec
from tests.worker.tiny import make_context, train_payload
from worker import capabilities
from worker.capabilities import measure
from worker.training.train import run_training

pytestmark = pytest.mark.model

REPOSITORY = Path(__file__).parent.parent.parent


def break_bitsandbytes(monkeypatch: pytest.MonkeyPatch, **functions: Callable[..., Any]) -> None:
    bnb = capabilities.import_bitsandbytes()
    for name, function in functions.items():
        monkeypatch.setattr(bnb.functional, name, function)


def fail(*_: Any, **__: Any) -> None:
    raise RuntimeError("no binary\n   for this device")


def test_a_cpu_can_hold_weights_in_4_and_8_bits_and_step_in_8() -> None:
    can = measure()
    assert can["cannot"] == {}
    assert (can["device"], can["cuda"], can["bf16"], can["paged"]) == ("cpu", None, False, False)
    assert can["torch"] == torch.__version__
    assert can["bitsandbytes"].startswith("0.")


def test_what_fails_is_named_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    break_bitsandbytes(monkeypatch, quantize_4bit=fail, optimizer_update_8bit_blockwise=fail)
    can = measure()
    reason = "RuntimeError: no binary for this device"
    assert can["cannot"] == {"4bit": reason, "adamw_8bit": reason}
    assert can["bitsandbytes"] is None


def test_what_computes_wrongly_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    bnb = capabilities.import_bitsandbytes()
    right = bnb.functional.dequantize_4bit
    break_bitsandbytes(monkeypatch, dequantize_4bit=lambda *given, **named: right(*given, **named) * float("nan"))
    assert measure()["cannot"] == {"4bit": "RuntimeError: a matrix in NF4 is nan% off"}


def test_a_package_that_is_not_there_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ModuleNotFoundError("No module named 'bitsandbytes'", name="bitsandbytes")

    monkeypatch.setattr(capabilities, "import_bitsandbytes", missing)
    assert measure()["cannot"] == dict.fromkeys(("4bit", "8bit", "adamw_8bit"), "bitsandbytes is not installed")


def test_a_job_says_at_its_start_what_submitting_would_have_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_bitsandbytes(monkeypatch, quantize_4bit=fail)
    payload = train_payload(tmp_path / "no model", tmp_path / "no rows", method="qlora", optim="adamw_torch")
    with pytest.raises(InvalidInput) as caught:
        run_training(make_context(tmp_path / "job", "train", payload))
    assert caught.value.faults == capability_faults(parse_spec(payload["spec"]), measure())
    assert caught.value.message == (
        "method: qlora cannot run on the worker's machine: RuntimeError: no binary for this device"
    )


def test_the_probe_is_nice_and_prints_one_json_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    increments: list[int] = []
    monkeypatch.setattr(capabilities.os, "nice", increments.append)
    assert capabilities.main() == 0
    assert increments == [19]
    assert json.loads(capsys.readouterr().out) == measure()


def test_a_child_fetches_no_compiled_code_of_the_hub(tmp_path: Path) -> None:
    """A model's configuration may name a kernel there; where the package `kernels` is installed, it would be loaded."""
    (tmp_path / "kernels.py").write_text("raise AssertionError('it was imported')\n")
    script = (
        "from worker.child import prepare_process\nprepare_process()\n"
        "import importlib.util\nassert importlib.util.find_spec('kernels') is None\n"
        "try:\n    import kernels\nexcept ImportError:\n    print('hidden')\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "hidden\n"


def test_a_child_imports_bitsandbytes_for_the_jobs_that_need_it_alone(tmp_path: Path) -> None:
    """With peft's imports, its adapters on a plain model, and only then a quantised one."""
    script = """
import sys
from worker.capabilities import hide_bitsandbytes
hide_bitsandbytes()
from app.core.jobs.spec import parse_spec
from tests.worker.tiny import save_tiny_model
from worker.training import train
from worker.training.model import choose_hardware
from worker.training.quantization import find_quantization
hardware, values = choose_hardware("auto"), {"base_model": "tiny", "dataset": "rows", "target_modules": ["q_proj"]}
save_tiny_model(sys.argv[1])
for method in ("lora", "qlora"):
    spec = parse_spec({**values, "method": method})
    model = train.base_model_of(sys.argv[1], hardware, find_quantization(spec.model_dump()))
    layer = train.add_lora(model, spec, "tiny").base_model.model.model.layers[0].self_attn.q_proj
    print(method, type(layer).__name__, any(name.startswith("bitsandbytes.") for name in sys.modules))
"""
    command = [sys.executable, "-c", script, str(tmp_path / "model")]
    output = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY).stdout
    assert output.splitlines() == ["lora Linear False", "qlora Linear4bit True"]
