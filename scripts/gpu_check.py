"""Check Loradeck on this machine's GPU, once, by hand: `make gpu-check`. docs/gpu-checklist.md explains each check.

Exit code 0 where every check passed, else 1.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.core.jobs.capabilities import describe_capabilities
from scripts.gpu_check_job import QLORA, STEPS, make_assignment
from worker.capabilities import measure
from worker.child import describe_error
from worker.context import Assignment
from worker.gpu import Sampler
from worker.nvml import DeviceReading
from worker.spool import Record, read_spool

MIB = 1024**2
_CHILD_SECONDS = 300.0
_SAMPLE_SECONDS = 0.1

# nvidia-smi's column, our value in its unit, and how far two looks a moment apart may differ.
_COMPARED: dict[str, tuple[Callable[[DeviceReading], float | None], float]] = {
    "memory.total": (lambda device: _mib(device.vram_total_bytes), 1),
    "memory.used": (lambda device: _mib(device.vram_used_bytes), 256),
    "temperature.gpu": (lambda device: device.temperature_celsius, 5),
    "power.limit": (lambda device: device.power_limit_watts, 1),
}


@dataclass(frozen=True, slots=True)
class Check:
    """One check's outcome, with what was seen."""

    name: str
    passed: bool
    seen: str

    def __str__(self) -> str:
        return f"[{'ok' if self.passed else 'FAILED'}] {self.name}: {self.seen}"


def check_nvml(sampler: Sampler) -> Check:
    """NVML answers; the whole reading is shown."""
    reading = sampler.sample(None)
    if not reading.available:
        return Check("NVML", False, f"No GPU can be read here. {reading.reason}")
    return Check("NVML", True, json.dumps(reading.to_json(), indent=2))


def check_nvidia_smi(sampler: Sampler) -> Check:
    """Our readings are those of nvidia-smi."""
    query = ",".join(["uuid", *_COMPARED])
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    try:
        rows = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return Check("nvidia-smi", False, f"it could not be run: {error}")
    return compare_with_nvidia_smi(sampler.sample(None).devices, rows)


def compare_with_nvidia_smi(devices: tuple[DeviceReading, ...], rows: str) -> Check:
    """`rows` are uuid and the compared columns as CSV; a value that nvidia-smi cannot read must be None here too."""
    theirs = {uuid: values for uuid, *values in (line.split(", ") for line in rows.strip().splitlines())}
    if set(theirs) != {device.uuid for device in devices}:
        return Check("nvidia-smi", False, f"it lists {sorted(theirs)}, NVML lists {[d.uuid for d in devices]}")
    differences = [
        f"GPU {device.index} {column}: {ours} here, {value} there"
        for device in devices
        for (column, (read, tolerance)), value in zip(_COMPARED.items(), theirs[device.uuid or ""], strict=True)
        if not _agree(ours := read(device), value, tolerance)
    ]
    return Check("nvidia-smi", not differences, "; ".join(differences) or f"{len(devices)} device(s), same values")


def _agree(ours: float | None, theirs: str, tolerance: float) -> bool:
    if theirs.startswith("["):  # [N/A], [Not Supported]
        return ours is None
    return ours is not None and abs(ours - float(theirs)) <= tolerance


def _mib(value: int | None) -> float | None:
    return None if value is None else value / MIB


def check_torch() -> Check:
    """torch computes on the GPU."""
    import torch

    if not torch.cuda.is_available():
        return Check(
            "torch", False, f"torch {torch.__version__} (built for CUDA {torch.version.cuda}) sees no CUDA device"
        )
    product = (torch.ones(64, 64, device="cuda") @ torch.ones(64, 64, device="cuda")).sum().item()
    capability = ".".join(str(part) for part in torch.cuda.get_device_capability())
    name = torch.cuda.get_device_name()
    return Check("torch", product == 64**3, f"torch {torch.__version__} on {name}, compute capability {capability}")


def check_attention() -> Check:
    """Rows attended to in one kernel call are as when attended to one by one."""
    import torch

    from scripts.gpu_check_attention import TOLERANCE, measure_attention

    name, difference = "variable-length attention", measure_attention(torch.device("cuda"))
    if difference is None:
        return Check(name, True, "this GPU has no such kernel: rows are attended to one by one, which is slower")
    return Check(name, difference <= TOLERANCE, f"differs by {difference:.1e} of the largest value")


def check_training(sampler: Sampler) -> list[Check]:
    """LoRA and QLoRA runs of a tiny random model, as the worker runs them: in a child, watched through NVML."""
    lora, records, vram_bytes = _train(sampler, "LoRA", {"probe": True})
    qlora, _, _ = _train(sampler, "QLoRA", QLORA)
    return [lora, judge_child_memory(vram_bytes), judge_plan(records), qlora]


def _train(sampler: Sampler, method: str, spec: dict[str, Any]) -> tuple[Check, list[Record], int | None]:
    with tempfile.TemporaryDirectory(prefix="loradeck-gpu-check-") as name:
        folder = Path(name)
        assignment = make_assignment(folder, **spec)
        vram_bytes = _watch_child(sampler, assignment, folder)
        records = [record for record, _ in read_spool(Path(assignment.spool))]
        logs = [
            path.read_text(errors="replace") for path in (folder / "child.log", Path(assignment.log)) if path.exists()
        ]
    return judge_training(records, "".join(logs), method), records, vram_bytes


def judge_training(records: list[Record], log: str, method: str = "LoRA") -> Check:
    """The child completed with a loss for each step."""
    name = f"{STEPS} {method} steps"
    outcome = next((record.data for record in records if record.kind == "finished"), None)
    if outcome is None or outcome["outcome"] != "completed":
        reason = "it ended without a word" if outcome is None else outcome["error"]
        return Check(name, False, f"{reason}\n" + "\n".join(log.splitlines()[-20:]))
    device, optim = (outcome["summary"].get(key, "an unnamed one") for key in ("device", "optim"))
    losses = {r.step: r.data["loss"] for r in records if r.kind == "metric" and r.data.get("loss") is not None}
    seen = f"losses of {len(losses)} steps, on {device}, with {optim}"
    return Check(name, len(losses) == STEPS, seen)


def judge_plan(records: list[Record]) -> Check:
    """The run measured what it held by component; where weights and adapter are the planned ones, all were told apart.

    The model is tiny: what the kernels hold beside it outweighs its work, which is shown and not judged.
    """
    name = "memory beside the plan"
    summary = next((record.data.get("summary", {}) for record in records if record.kind == "finished"), {})
    memory = summary.get("memory")
    if memory is None:
        return Check(name, False, "the run measured nothing; its log says why")
    planned, measured = memory["planned"], memory["measured"]
    near = all(abs(measured[group] - planned[group]) <= MIB for group in ("weights", "adapter"))
    figures = ", ".join(f"{group} {size / MIB:.1f} of {planned[group] / MIB:.1f}" for group, size in measured.items())
    probe = f"; probe {summary['probe']['peak_bytes'] / MIB:.1f}" if "probe" in summary else ""
    return Check(name, near, f"MiB measured of planned: {figures}{probe}")


def judge_child_memory(vram_bytes: int | None) -> Check:
    """NVML showed memory of the child."""
    if not vram_bytes:
        seen = "NVML never listed the child. In a container, share the host's pids (`pid: host`) or update the driver."
        return Check("process_vram_bytes", False, seen)
    return Check("process_vram_bytes", True, f"at most {vram_bytes / MIB:.0f} MiB")


def _watch_child(sampler: Sampler, assignment: Assignment, folder: Path) -> int | None:
    """Run the child to its end. Returns the most `process_vram_bytes` that NVML showed for it."""
    with (folder / "child.log").open("w") as log:
        command = [sys.executable, "-m", "worker.child"]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, text=True)
    assert child.stdin is not None
    child.stdin.write(assignment.to_line())
    child.stdin.close()
    deadline = time.monotonic() + _CHILD_SECONDS
    seen: list[int] = []
    while child.poll() is None:
        if time.monotonic() > deadline:
            child.kill()
        devices = sampler.sample(child.pid).devices
        seen += [device.process_vram_bytes for device in devices if device.process_vram_bytes is not None]
        time.sleep(_SAMPLE_SECONDS)
    return max(seen, default=None)


def check_capabilities() -> Check:
    """A child of this machine can do everything that depends on the GPU and on bitsandbytes."""
    found = measure()
    return Check("capabilities", found["paged"] and not found["cannot"], describe_capabilities(found))


def check_out_of_memory() -> Check:
    """A real CUDA out-of-memory error gets its own name and an advice."""
    import torch

    try:
        torch.empty(1 << 50, dtype=torch.uint8, device="cuda")
    except RuntimeError as error:
        described = describe_error(error)
        return Check("out of memory", described["kind"] == "out_of_memory", json.dumps(described))
    return Check("out of memory", False, "a petabyte was allocated")


def main() -> int:
    sampler = Sampler(Path.cwd())
    first = check_nvml(sampler)
    sys.stdout.write(f"{first}\n")
    if not first.passed:
        return 1
    checks = [check_nvidia_smi(sampler), check_torch()]
    sys.stdout.write("".join(f"{check}\n" for check in checks))
    if checks[-1].passed:
        checks += [check_attention(), check_capabilities(), *check_training(sampler), check_out_of_memory()]
        sys.stdout.write("".join(f"{check}\n" for check in checks[2:]))
    failed = [check.name for check in checks if not check.passed]
    sys.stdout.write(f"Failed: {', '.join(failed)}\n" if failed else "Every check passed.\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
