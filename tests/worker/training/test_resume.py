"""A run that is interrupted and goes on equals one that is not: weights, optimizer, random states, order, curves."""

from __future__ import annotations

import hashlib
import json
import logging
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Trainer

from app.core.errors import JobCancelled, JobError
from tests.worker.tiny import ROWS, make_context, read_records, train_payload, write_rows
from worker.artifacts.folders import DiskFull, folder_fault
from worker.base_models.publish import hash_file
from worker.context import JobContext, StopRequest
from worker.spool import SpoolWriter
from worker.training import resume
from worker.training.resume import StateStore
from worker.training.run import Run
from worker.training.train import run_training

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]

# 22 rows to train on: 11 batches, 6 steps an epoch, the last of them of one batch
SPEC = {
    "max_steps": None,
    "num_train_epochs": 2,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "lora_dropout": 0.1,
    "target_modules": ["q_proj", "down_proj"],
    "eval_steps": 3,
    "save_steps": 2,
    "logging_steps": 2,
}
TIMES = {"tokens_per_second"}
WEIGHTS = "adapter/adapter_model.safetensors"


class PowerCut(Exception):
    """Ends a run in mid-step."""


@dataclass
class Recorded:
    """What a run did: batches by step, and how everything stood at its end."""

    batches: dict[int, list[str]] = field(default_factory=dict)
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    optimizer: Any = None
    scheduler: Any = None
    random: Any = None
    tokens: int = 0
    summary: dict[str, Any] = field(default_factory=dict)


def record(monkeypatch: pytest.MonkeyPatch, cut_in_step: int | None) -> Recorded:
    """Watch the next run, and cut its power in the last batch of a step."""
    recorded = Recorded()
    step, train = Trainer.training_step, Trainer.train

    def training_step(self: Any, model: Any, inputs: Any, *rest: Any) -> torch.Tensor:
        loss = step(self, model, inputs, *rest)
        number = self.state.global_step + 1
        text = str({name: value.tolist() for name, value in inputs.items() if isinstance(value, torch.Tensor)})
        recorded.batches.setdefault(number, []).append(hashlib.sha256(text.encode()).hexdigest())
        if number == cut_in_step and len(recorded.batches[number]) == self.current_gradient_accumulation_steps:
            raise PowerCut
        return loss

    def watched(self: Any, *arguments: Any, **keywords: Any) -> Any:
        result = train(self, *arguments, **keywords)
        recorded.weights = {n: p.detach().clone() for n, p in self.model.named_parameters() if p.requires_grad}
        recorded.optimizer, recorded.scheduler = self.optimizer.state_dict(), self.lr_scheduler.state_dict()
        recorded.random = (random.getstate(), np.random.get_state(), torch.get_rng_state())
        recorded.tokens = self.tokens_seen
        return result

    monkeypatch.setattr(Trainer, "training_step", training_step)
    monkeypatch.setattr(Trainer, "train", watched)
    return recorded


def run(context: JobContext, cut_in_step: int | None = None) -> Recorded:
    """One attempt."""
    with pytest.MonkeyPatch.context() as patched:
        recorded = record(patched, cut_in_step)
        if cut_in_step is None:
            recorded.summary = run_training(context)
        else:
            with pytest.raises(PowerCut):
                run_training(context)
    return recorded


def next_attempt(context: JobContext) -> JobContext:
    """As the worker makes it: the same folder and payload, a spool of its own."""
    number = context.assignment.attempt + 1
    spool = context.folder / f"spool-{number}.jsonl"
    return JobContext(replace(context.assignment, attempt=number, spool=str(spool)), SpoolWriter(spool))


def curves(*attempts: JobContext) -> dict[tuple[str, int], float]:
    """Metric values by name and step, as the database would hold them."""
    values: dict[tuple[str, int], float] = {}
    for attempt in attempts:
        for record in read_records(attempt):
            at = record.step or 0
            if record.kind == "start":
                values = {key: value for key, value in values.items() if at and key[1] <= at}
            if record.kind == "metric":
                values |= {(name, at): value for name, value in record.data.items() if name not in TIMES}
    return values


def same(left: Any, right: Any) -> bool:
    """Equal to the last bit, through lists and dicts."""
    if isinstance(left, torch.Tensor | np.ndarray):
        return torch.equal(torch.as_tensor(left), torch.as_tensor(right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def uneven(path: Path) -> Path:
    """Rows of many lengths."""
    answers = [[{"role": "assistant", "content": "red blue " * (3 * i % 17 + 1)}] for i in range(len(ROWS))]
    return write_rows(path, [[row[0], *answer] for row, answer in zip(ROWS, answers, strict=True)])


def pairs(path: Path) -> Path:
    """Preference pairs of many lengths."""
    rejected = [[{"role": "assistant", "content": "No. " * (3 * i % 7 + 1)}] for i in range(len(ROWS))]
    lines = [{"prompt": r[:1], "chosen": r[1:], "rejected": no} for r, no in zip(ROWS, rejected, strict=True)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def make_job(folder: Path, model: Path, **spec: Any) -> JobContext:
    """A training job in `folder`; keywords override the spec."""
    write = pairs if spec.get("task") == "dpo" else uneven
    rows = folder.parent / "rows.jsonl"
    if not rows.exists():
        write(rows)
    return make_context(folder, "train", train_payload(model, rows, **{**SPEC, **spec}))


RUNS = [
    pytest.param({}, 8, 10, id="in mid-epoch"),
    pytest.param({"padded": True}, 4, 5, id="padded batches"),
    pytest.param({"packing": True, "max_length": 96, "num_train_epochs": 4}, 4, 6, id="packed rows"),
    pytest.param({"method": "full", "learning_rate": 1e-3, "max_steps": 7}, 6, 7, id="full"),
    pytest.param({"method": "qlora", "optim": "adamw_8bit", "r": 64, "max_steps": 9}, 8, 9, id="QLoRA, 8-bit AdamW"),
    pytest.param({"task": "dpo", "max_steps": 9}, 8, 9, id="DPO"),
    pytest.param({"task": "dpo", "init_lora_weights": "olora", "max_steps": 7}, 6, 7, id="DPO, OLoRA"),
    pytest.param({"init_lora_weights": "pissa", "use_rslora": True}, 8, 9, id="PiSSA"),
    pytest.param({"early_stopping_patience": 2, "num_train_epochs": 3, "worse_after": 6}, 10, 11, id="stops early"),
    pytest.param({"use_dora": True, "gradient_accumulation_steps": 3, "max_steps": 7}, 6, 7, id="DoRA, max_steps"),
]


@pytest.mark.parametrize(("spec", "saved", "cut"), RUNS)
def test_interrupted_run_ends_as_the_undisturbed_one(
    spec: dict[str, Any], saved: int, cut: int, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.training.run.write_samples", lambda *_: None)  # they take most of the time
    spec = dict(spec)
    spoil_evals(spec.pop("worse_after", None), monkeypatch)
    if spec.pop("padded", False):
        monkeypatch.setattr("worker.training.batches.proves_isolation", lambda *_: False)
    undisturbed, first = (make_job(tmp_path / name, tiny_model, **spec) for name in ("undisturbed", "interrupted"))
    whole = run(undisturbed)
    run(first, cut_in_step=cut)
    second = next_attempt(first)
    rest = run(second)
    assert_same_end((first, second), rest, undisturbed, whole, saved)
    if "8bit" in spec.get("optim", ""):
        tensors = (value for state in whole.optimizer["state"].values() for value in flat(state))
        assert any(tensor.dtype == torch.uint8 for tensor in tensors), "the optimizer held nothing in 8 bits"
    if spec.get("early_stopping_patience"):
        assert (whole.summary["steps"], whole.summary["saved_step"], whole.summary["stopped_early"]) == (12, 6, True)


def flat(state: dict[str, Any]) -> list[torch.Tensor]:
    """All tensors of an optimizer's state, however deep."""
    nested = (flat(value) if isinstance(value, dict) else [value] for value in state.values())
    return [value for values in nested for value in values if isinstance(value, torch.Tensor)]


def spoil_evals(after: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the eval loss rise after a step."""
    evaluate = Run._evaluate

    def rising(run: Run, base: bool) -> dict[str, float]:
        values = evaluate(run, base)
        penalty = max(0, run._trainer.state.global_step - after) if after else 0
        return {**values, "eval_loss": values["eval_loss"] + penalty}

    monkeypatch.setattr(Run, "_evaluate", rising)


def assert_same_end(
    attempts: tuple[JobContext, JobContext], rest: Recorded, undisturbed: JobContext, whole: Recorded, saved: int
) -> None:
    assert (rest.summary["resumed_from_step"], rest.summary["attempts"]) == (saved, 2)
    assert (whole.summary["resumed_from_step"], whole.summary["attempts"]) == (None, 1)
    assert rest.batches == {step: batches for step, batches in whole.batches.items() if step > saved}
    for part in ("weights", "optimizer", "scheduler", "random", "tokens"):
        assert same(getattr(rest, part), getattr(whole, part)), part
    assert curves(*attempts) == curves(undisturbed)
    assert told(rest.summary) == told(whole.summary)
    folder, other = attempts[0].folder, undisturbed.folder
    weights = WEIGHTS if (other / "adapter").exists() else "model/model.safetensors"
    assert hash_file(folder / weights) == hash_file(other / weights)
    for kept in ("checkpoints", "state"):
        assert [p.name for p in sorted((folder / kept).iterdir())] == [p.name for p in sorted((other / kept).iterdir())]


def told(summary: dict[str, Any]) -> dict[str, Any]:
    """A summary without what differs between attempts and from one moment to the next."""
    passing = {"train_seconds", "tokens_per_second", "resumed_from_step", "attempts", "adapter_bytes", "model_bytes"}
    return {name: value for name, value in summary.items() if name not in passing}


@dataclass(frozen=True)
class Interrupted:
    """A job cut in step 7 with states of the steps 4 and 6, and its undisturbed twin."""

    job: JobContext
    twin: JobContext
    whole: Recorded


@pytest.fixture(scope="module")
def cut_once(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Interrupted:
    """Read only: `interrupted` is a copy."""
    parent = tmp_path_factory.mktemp("cut")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    job, twin = (make_job(parent / name, tiny_model) for name in ("job", "twin"))
    whole = run(twin)
    run(job, cut_in_step=7)
    torch.set_num_threads(threads)
    return Interrupted(job, twin, whole)


@pytest.fixture
def interrupted(cut_once: Interrupted, tmp_path: Path) -> JobContext:
    """The interrupted job in a folder of this test's own."""
    folder = Path(shutil.copytree(cut_once.job.folder, tmp_path / "job"))
    spool = folder / "spool.jsonl"
    assignment = replace(cut_once.job.assignment, job_folder=str(folder), spool=str(spool))
    return JobContext(assignment, SpoolWriter(spool))


def origin_of(job: JobContext) -> dict[str, str]:
    origin: dict[str, str] = json.loads((job.folder / "state" / "step-4" / "meta.json").read_text())["origin"]
    return origin


def found_step(job: JobContext, **origin: str) -> int | None:
    found = StateStore(job.folder, {**origin_of(job), **origin}, "cpu").find()
    return found.step if found else None


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


FILES = [
    "trainable.safetensors",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",
    "progress.json",
]
DAMAGE = [
    *(pytest.param(name, flip, f"{name} is damaged", id=f"flipped byte in {name}") for name in FILES),
    *(pytest.param(name, Path.unlink, f"{name} is missing", id=f"no {name}") for name in FILES),
    pytest.param("optimizer.pt", lambda f: f.write_bytes(f.read_bytes()[:-9]), "optimizer.pt has", id="cut short"),
    pytest.param("meta.json", Path.unlink, "it is not complete: meta.json is missing", id="half-written"),
    pytest.param("meta.json", lambda f: f.write_text("{"), "meta.json cannot be read", id="meta.json is no JSON"),
    pytest.param("meta.json", lambda f: f.write_text("{}"), "meta.json cannot be read", id="meta.json without files"),
]


@pytest.mark.parametrize(("name", "damage", "reason"), DAMAGE)
def test_damaged_state_is_passed_over_with_its_reason(
    name: str, damage: Callable[[Path], Any], reason: str, interrupted: JobContext, caplog: pytest.LogCaptureFixture
) -> None:
    assert found_step(interrupted) == 6
    damage(interrupted.folder / "state" / "step-6" / name)
    with caplog.at_level(logging.INFO):
        assert found_step(interrupted) == 4
    assert f"the training state of step 6 is passed over: {reason}" in caplog.text
    assert "going on from the training state of step 4" in caplog.text


@pytest.mark.parametrize("key", ["spec", "dataset", "base_model", "rows", "start"])
def test_state_of_another_run_is_passed_over(
    key: str, interrupted: JobContext, caplog: pytest.LogCaptureFixture
) -> None:
    assert found_step(interrupted, **{key: "another"}) is None
    assert caplog.text.count(resume._ORIGINS[key]) == 2


def test_state_of_another_version_is_used_and_said_to_be(
    interrupted: JobContext, caplog: pytest.LogCaptureFixture
) -> None:
    meta = interrupted.folder / "state" / "step-6" / "meta.json"
    meta.write_text(meta.read_text().replace(f'"torch": "{torch.__version__}"', '"torch": "1.0"'))
    assert found_step(interrupted) == 6
    assert f"saved with torch 1.0 (now {torch.__version__}): the run may differ in the last digits" in caplog.text


def test_run_goes_on_from_the_older_state_where_the_newest_is_damaged(
    interrupted: JobContext, cut_once: Interrupted
) -> None:
    flip(interrupted.folder / "state" / "step-6" / "optimizer.pt")
    (interrupted.folder / "state" / ".step-8.partial").mkdir()  # a process was killed while it wrote
    second = next_attempt(interrupted)
    rest = run(second)
    assert_same_end((interrupted, second), rest, cut_once.twin, cut_once.whole, 4)
    receipt = json.loads((interrupted.folder / "receipt.json").read_text())
    assert (receipt["attempt"], receipt["result"]["resumed_from_step"]) == (2, 4)


def test_run_that_is_cut_at_an_epochs_end_goes_on_with_the_next(interrupted: JobContext, cut_once: Interrupted) -> None:
    second = next_attempt(interrupted)
    rest = run(second)
    assert_same_end((interrupted, second), rest, cut_once.twin, cut_once.whole, 6)


def test_run_that_goes_on_tells_its_place_at_once_and_repeats_no_eval(interrupted: JobContext) -> None:
    second = next_attempt(interrupted)
    run(second, cut_in_step=8)
    records = read_records(second)
    told_of = [(record.kind, record.step) for record in records if record.kind in ("start", "progress")]
    assert told_of[:2] == [("start", 6), ("progress", 6)]
    progress = next(record for record in records if record.kind == "progress")
    trained = json.loads((interrupted.folder / "state" / "step-6" / "progress.json").read_text())["totals"]
    assert progress.data["max_steps"] == 12
    assert progress.data["eta_seconds"] == pytest.approx(trained["train_seconds"], abs=0.06), "half of the run is left"
    assert 0 not in [record.step for record in records if record.kind == "metric"], "the base model was measured before"
    assert "tokenize" in [record.data.get("phase") for record in records]


def test_run_without_a_state_that_can_be_used_starts_anew(interrupted: JobContext, cut_once: Interrupted) -> None:
    for step in (4, 6):
        (interrupted.folder / "state" / f"step-{step}" / "meta.json").unlink()
    second = next_attempt(interrupted)
    rest = run(second)
    assert rest.summary["resumed_from_step"] is None
    assert curves(interrupted, second) == curves(cut_once.twin)
    assert hash_file(interrupted.folder / WEIGHTS) == hash_file(cut_once.twin.folder / WEIGHTS)


@pytest.mark.parametrize("at", ["before", "in mid-write"])
def test_full_disk_leaves_the_older_state_whole(
    at: str, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(tmp_path / "job", tiny_model, eval_fraction=0)
    needed, save = resume._bytes_needed, Trainer._save_rng_state

    def bytes_needed(trainer: Trainer) -> int:
        return 1 << 60 if at == "before" and trainer.state.global_step == 6 else needed(trainer)

    def save_rng_state(trainer: Trainer, folder: str) -> None:
        if at == "in mid-write" and trainer.state.global_step == 6:
            raise OSError(28, "No space left on device")
        save(trainer, folder)

    monkeypatch.setattr(resume, "_bytes_needed", bytes_needed)
    monkeypatch.setattr(Trainer, "_save_rng_state", save_rng_state)
    with pytest.raises(DiskFull if at == "before" else OSError, match=r"free disk space|No space left"):
        run_training(job)
    states = job.folder / "state"
    assert sorted(path.name for path in states.iterdir()) == ["step-2", "step-4"]
    assert [folder_fault(path) for path in states.iterdir()] == [None, None]
    assert found_step(job) == 4


def test_base_samples_of_an_adapter_that_starts_elsewhere_are_told_once(tmp_path: Path, tiny_model: Path) -> None:
    job = make_job(tmp_path / "job", tiny_model, init_lora_weights="pissa", max_steps=4)
    run(job, cut_in_step=3)
    second = next_attempt(job)
    run(second)
    first, rest = ([r.step for r in read_records(each) if r.kind == "sample"] for each in (job, second))
    assert (set(first), set(rest)) == ({0}, {4})


def test_state_that_does_not_fit_the_model_is_an_error(interrupted: JobContext) -> None:
    other = torch.nn.Linear(2, 2)
    with pytest.raises(JobError, match="does not fit the model"):
        resume.load_trainable(other, interrupted.folder / "state" / "step-6")


def interrupt_in(step: int, context: JobContext, monkeypatch: pytest.MonkeyPatch, *, seconds: float = 60.0) -> None:
    """Let the worker stop while the batches of a step are trained on; so many seconds are left then."""
    tick = Trainer.training_step

    def training_step(trainer: Trainer, *given: Any) -> torch.Tensor:
        if trainer.state.global_step + 1 == step:
            context.stop_request, context.stop_by = StopRequest.INTERRUPT, time.monotonic() + seconds
        return tick(trainer, *given)

    monkeypatch.setattr(Trainer, "training_step", training_step)


def test_worker_that_stops_lets_the_run_save_where_it_is(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step 7 is neither one to save nor to evaluate after."""
    monkeypatch.setattr("worker.training.run.write_samples", lambda *_: None)
    twin, job = (make_job(tmp_path / name, tiny_model, logging_steps=1) for name in ("twin", "job"))
    whole = run(twin)
    with monkeypatch.context() as patched:
        interrupt_in(7, job, patched)
        with pytest.raises(JobCancelled):
            run_training(job)
    assert sorted(path.name for path in (job.folder / "state").iterdir()) == ["step-6", "step-7"]
    assert [path.name for path in sorted((job.folder / "checkpoints").iterdir())] == ["step-4", "step-6"]
    assert not (job.folder / "adapter").exists()
    second = next_attempt(job)
    assert_same_end((job, second), run(second), twin, whole, 7)


@pytest.mark.parametrize(("step", "seconds"), [(7, -1.0), (9, 60.0), (12, 60.0)])
def test_worker_that_stops_is_not_kept_waiting(
    step: int, seconds: float, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without time, before an eval, and after the last step the run ends at once, and goes on from the last state."""
    job = make_job(tmp_path / "job", tiny_model)
    interrupt_in(step, job, monkeypatch, seconds=seconds)
    with pytest.raises(JobCancelled):
        run_training(job)
    assert max(int(path.name.removeprefix("step-")) for path in (job.folder / "state").iterdir()) == (step - 1) // 2 * 2
    assert not (job.folder / "adapter").exists()


def test_worker_that_stops_after_a_step_to_save_after_gets_checkpoint_and_state(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(tmp_path / "job", tiny_model)
    interrupt_in(4, job, monkeypatch)
    with pytest.raises(JobCancelled):
        run_training(job)
    for kept in ("checkpoints", "state"):
        assert sorted(path.name for path in (job.folder / kept).iterdir()) == ["step-2", "step-4"]
