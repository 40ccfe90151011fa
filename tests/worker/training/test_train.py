"""Whole training jobs on the tiny model, through a real spool."""

from __future__ import annotations

import json
import logging
import math
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from app.core.errors import DatasetFormatError, InvalidInput, JobCancelled, JobError
from tests.worker.tiny import ROWS, make_context, read_records, save_tiny_model, train_payload, write_rows
from worker import patience
from worker.artifacts import disk, folders
from worker.base_models.publish import hash_file
from worker.context import JobContext, StopRequest
from worker.notes import read_wait
from worker.training.attention import proves_isolation
from worker.training.callback import SpoolCallback
from worker.training.train import run_training

pytestmark = [
    pytest.mark.model,
    # peft asks transformers by the older name
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]

MakeJob = Callable[..., JobContext]


def series(context: JobContext, name: str) -> dict[int | None, float]:
    records = [record for record in read_records(context) if record.kind == "metric" and name in record.data]
    assert len({record.step for record in records}) == len(records), "a step was reported twice"
    return {record.step: record.data[name] for record in records}


def stop_at(context: JobContext, step: int, request: StopRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask to stop once the metrics of `step` are written, as a signal would."""
    write = context.spool.metrics

    def metrics(at: int, values: dict[str, float]) -> None:
        write(at, values)
        if at == step:
            context.stop_request = request

    monkeypatch.setattr(context.spool, "metrics", metrics)


def folders_below(context: JobContext) -> list[str]:
    return sorted(str(path.relative_to(context.folder)) for path in context.folder.rglob("*") if path.is_dir())


def test_loss_falls_and_every_step_is_reported(make_job: MakeJob) -> None:
    context = make_job(max_steps=60, r=16, learning_rate=2e-2, eval_steps=30)
    summary = run_training(context)
    loss, eval_loss = series(context, "loss"), series(context, "eval_loss")
    assert list(loss) == list(range(1, 61))
    assert sorted(eval_loss) == [0, 30, 60]  # type: ignore[type-var]
    assert loss[60] < loss[1] - 0.15
    assert eval_loss[60] < eval_loss[0] - 0.15
    assert summary["train_loss"] == loss[60]
    assert summary["eval_loss"] == eval_loss[60]


def test_a_step_reports_rate_norm_and_tokens(make_job: MakeJob) -> None:
    context = make_job(max_steps=3)
    summary = run_training(context)
    metrics = [r.data for r in read_records(context) if r.kind == "metric" and "loss" in r.data]
    assert all(math.isfinite(value) and value >= 0 for point in metrics for value in point.values())
    assert {"loss", "learning_rate", "grad_norm", "tokens", "tokens_per_second", "epoch"} == set(metrics[0])
    tokens = [point["tokens"] for point in metrics]
    assert tokens == sorted(set(tokens))
    assert summary["tokens"] == tokens[-1]
    assert metrics[-1]["epoch"] == pytest.approx(3 / 6)


def test_tokens_count_the_rows_without_their_padding(make_job: MakeJob, tiny_model: Path) -> None:
    context = make_job(max_steps=None, num_train_epochs=1, eval_fraction=0)
    summary = run_training(context)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    texts = [tokenizer.apply_chat_template(row, tokenize=False) for row in ROWS]
    assert summary["tokens"] == sum(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)
    assert summary["steps"] == 6


def test_summary(make_job: MakeJob) -> None:
    context = make_job(max_steps=2)
    summary = run_training(context)
    adapter = context.folder / "adapter"
    weights = load_file(adapter / "adapter_model.safetensors")
    assert summary["trainable_parameters"] == sum(tensor.numel() for tensor in weights.values())
    assert summary["all_parameters"] > summary["trainable_parameters"]
    assert summary["adapter_bytes"] == sum(file.stat().st_size for file in adapter.iterdir())
    assert (summary["rows_train"], summary["rows_eval"]) == (22, 2)
    assert (summary["rows_dropped"], summary["rows_truncated"]) == (0, 0)
    assert (summary["device"], summary["dtype"]) == ("cpu", "float32")
    seconds = summary["tokens"] / summary["tokens_per_second"]
    assert summary["train_seconds"] == pytest.approx(seconds, abs=0.0006), "told in milliseconds"


def test_phases_progress_and_artifacts_in_order(make_job: MakeJob) -> None:
    context = make_job(max_steps=12, eval_steps=6, save_steps=4)
    run_training(context)
    records = read_records(context)
    phases = [r.data["phase"] for r in records if r.kind == "phase"]
    assert [p for i, p in enumerate(phases) if i == 0 or p != phases[i - 1]] == [
        *("load", "tokenize", "train", "save", "sample", "train", "eval", "train", "save", "sample", "train", "eval"),
        *("save", "sample"),
    ]
    artifacts = [(r.data["kind"], r.data["path"], r.step) for r in records if r.kind == "artifact"]
    assert artifacts == [
        ("checkpoint", "checkpoints/step-4", 4),
        ("checkpoint", "checkpoints/step-8", 8),
        ("adapter", "adapter", 12),
    ]
    last = [r for r in records if r.kind == "progress"][-1]
    assert (last.step, last.data["max_steps"]) == (12, 12)


def test_time_left_is_told_of_the_steps_alone(make_job: MakeJob) -> None:
    """While the model is measured or saved, and after the last step, nobody knows how long that takes."""
    context = make_job(max_steps=12, eval_steps=6, save_steps=4)
    run_training(context)
    phase, told = "", []
    for record in read_records(context):
        phase = record.data.get("phase", phase)
        if record.kind == "progress":
            told.append((phase, record.step, record.data["eta_seconds"]))
    assert {phase for phase, _, _ in told} == {"train", "save", "sample", "eval"}
    unknown = [left for phase, step, left in told if phase != "train" or step in (0, 12)]
    assert unknown == [None] * len(unknown)
    assert all(left is not None for phase, step, left in told if phase == "train" and 0 < (step or 0) < 12)
    assert told[-1][1:] == (12, None)


def test_old_checkpoints_give_way_to_newer_ones(make_job: MakeJob) -> None:
    context = make_job(max_steps=9, save_steps=2, save_total_limit=2)
    run_training(context)
    kept = ["adapter", "checkpoints", "checkpoints/step-6", "checkpoints/step-8"]
    assert folders_below(context) == [*kept, "state", "state/step-8", "state/step-9"]


def test_adapter_loads_with_plain_peft_and_changes_the_answers(make_job: MakeJob, tiny_model: Path) -> None:
    context = make_job(max_steps=12)
    run_training(context)
    base = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    ids = torch.arange(3, 40).unsqueeze(0)
    with torch.inference_mode():
        before = base(input_ids=ids).logits
        tuned = PeftModel.from_pretrained(base, str(context.folder / "adapter")).eval()
        after = tuned(input_ids=ids).logits
    assert (before - after).abs().max() > 1e-3
    tokenizer = AutoTokenizer.from_pretrained(context.folder / "adapter")
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(tiny_model).chat_template


def test_adapter_names_its_base_by_name_and_no_path_of_this_machine(make_job: MakeJob, tiny_model: Path) -> None:
    context = make_job(max_steps=1)
    run_training(context)
    adapter = context.folder / "adapter"
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny"
    assert config["target_modules"] == sorted(config["target_modules"]), "the same run leaves the same bytes"
    for file in adapter.iterdir():
        assert str(tiny_model.parent).encode() not in file.read_bytes(), file.name


def test_meta_lists_every_file_with_its_hash(make_job: MakeJob) -> None:
    context = make_job(max_steps=1)
    run_training(context)
    adapter = context.folder / "adapter"
    meta = json.loads((adapter / "meta.json").read_text())
    assert {file["path"] for file in meta["files"]} == {f.name for f in adapter.iterdir()} - {"meta.json"}
    for file in meta["files"]:
        assert (file["bytes"], file["sha256"]) == (
            (adapter / file["path"]).stat().st_size,
            hash_file(adapter / file["path"]),
        )
    assert (meta["step"], meta["spec"]["r"], meta["base_model"]["name"]) == (1, 8, "tiny")


def test_first_eval_loss_is_the_untuned_models(make_job: MakeJob) -> None:
    """It is measured late, with the adapter off, and must not see what was trained."""
    losses = []
    for learning_rate in (1e-9, 5e-2):
        context = make_job(max_steps=6, learning_rate=learning_rate, seed=1)
        run_training(context)
        losses.append(series(context, "eval_loss"))
        (context.folder / "spool.jsonl").unlink()
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-6)
    assert losses[0][6] == pytest.approx(losses[0][0], rel=1e-4)
    assert losses[1][6] < losses[1][0] - 0.01


def test_accumulation_gives_the_same_losses_as_one_large_batch(make_job: MakeJob) -> None:
    """Rows differ in length, so a mean of micro-batch means would not."""
    losses = []
    for batch, accumulation in ((8, 1), (2, 4), (1, 8)):
        context = make_job(
            max_steps=5, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation, eval_fraction=0
        )
        rows = [[row[0], {"role": "assistant", "content": "red " * (i % 7 + 1)}] for i, row in enumerate(ROWS)]
        write_rows(Path(context.payload["dataset"]["path"]), rows)
        run_training(context)
        losses.append(series(context, "loss"))
        (context.folder / "spool.jsonl").unlink()
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0] == pytest.approx(losses[2], rel=1e-4)


def test_flattened_and_padded_batches_give_the_same_losses(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also with checkpointing, whose second pass through the layers comes after the forward has ended."""
    losses, eval_losses = [], []
    for flat, checkpointing in ((True, False), (True, True), (False, False)):
        context = make_job(max_steps=4, eval_steps=2, gradient_checkpointing=checkpointing)
        monkeypatch.setattr("worker.training.batches.proves_isolation", proves_isolation if flat else lambda *_: False)
        rows = [[row[0], {"role": "assistant", "content": "red " * (3 * i % 17 + 1)}] for i, row in enumerate(ROWS)]
        write_rows(Path(context.payload["dataset"]["path"]), rows)
        with caplog.at_level(logging.INFO):
            run_training(context)
        losses.append(series(context, "loss"))
        eval_losses.append(series(context, "eval_loss"))
        (context.folder / "spool.jsonl").unlink()
    assert caplog.text.count("batches are flattened") == 2
    for each in losses[1:]:
        assert each == pytest.approx(losses[0], rel=1e-5)
    for each in eval_losses[1:]:
        assert each == pytest.approx(eval_losses[0], rel=1e-5)


def test_same_seed_gives_the_same_run(make_job: MakeJob) -> None:
    losses = []
    for _ in range(2):
        context = make_job(max_steps=4, lora_dropout=0.1)
        run_training(context)
        losses.append(series(context, "loss"))
        (context.folder / "spool.jsonl").unlink()
        shutil.rmtree(context.folder / "state")  # else the second would be at its end at once
    assert losses[0] == losses[1]


def test_gradient_checkpointing_changes_no_loss(make_job: MakeJob) -> None:
    losses = []
    for checkpointing in (False, True):
        context = make_job(max_steps=3, gradient_checkpointing=checkpointing)
        run_training(context)
        losses.append(series(context, "loss"))
        (context.folder / "spool.jsonl").unlink()
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_sparse_logging_reports_the_mean_of_the_steps_between(make_job: MakeJob) -> None:
    contexts = []
    for logging_steps in (1, 4):
        context = make_job(max_steps=9, logging_steps=logging_steps, eval_fraction=0, save_steps=100)
        run_training(context)
        contexts.append(series(context, "loss"))
        (context.folder / "spool.jsonl").unlink()
    dense, sparse = contexts
    assert list(sparse) == [1, 4, 8, 9]
    assert sparse[8] == pytest.approx(sum(dense[step] for step in (5, 6, 7, 8)) / 4, rel=1e-5)


def test_cancel_ends_at_once_and_leaves_no_adapter(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    context = make_job(max_steps=50, save_steps=100)
    stop_at(context, 3, StopRequest.CANCEL, monkeypatch)
    with pytest.raises(JobCancelled):
        run_training(context)
    assert max(step or 0 for step in series(context, "loss")) == 3
    assert folders_below(context) == []


def test_stop_and_save_saves_the_adapter_of_that_step(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    context = make_job(max_steps=50, save_steps=100, eval_steps=100)
    stop_at(context, 3, StopRequest.SAVE, monkeypatch)
    with pytest.raises(JobCancelled) as stopped:
        run_training(context)
    (artifact,) = [r for r in read_records(context) if r.kind == "artifact"]
    assert (artifact.data["path"], artifact.step) == ("adapter", 4)
    assert json.loads((context.folder / "adapter" / "meta.json").read_text())["step"] == 4
    summary = stopped.value.summary
    assert (summary["steps"], summary["saved_step"], summary["stopped_by_user"]) == (4, 4, True)
    assert summary["train_loss"] == series(context, "loss")[4]
    assert summary["adapter_bytes"] > 0
    assert json.loads((context.folder / "receipt.json").read_text())["result"] == summary


def test_stop_that_comes_with_the_last_step_stops_nothing(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    context = make_job(max_steps=3, save_steps=100, eval_steps=100)
    stop_at(context, 3, StopRequest.SAVE, monkeypatch)
    assert run_training(context)["stopped_by_user"] is False


def test_cancel_in_mid_save_leaves_nothing_half_written(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    write_meta = folders._write_meta

    def die(folder: Path, meta: Any) -> None:
        if meta["kind"] == "tokens":
            return write_meta(folder, meta)
        raise OSError(5, "Input/output error")

    context = make_job(max_steps=2)
    monkeypatch.setattr(folders, "_write_meta", die)
    with pytest.raises(OSError, match="Input/output error"):
        run_training(context)
    assert folders_below(context) == ["state"]  # with nothing in it
    assert not [r for r in read_records(context) if r.kind == "artifact"]


def test_loss_that_is_not_finite_stops_the_job_before_it_is_saved(make_job: MakeJob, tmp_path: Path) -> None:
    broken = save_tiny_model(tmp_path / "broken")
    model = AutoModelForCausalLM.from_pretrained(broken)
    model.model.norm.weight.data.fill_(float("nan"))
    model.save_pretrained(broken)
    context = make_job(max_steps=4, save_steps=1)
    context.payload["base_model"]["path"] = str(broken)
    with pytest.raises(JobError, match="loss became nan at step 1") as caught:
        run_training(context)
    assert "learning_rate" in str(caught.value.advice)
    assert series(context, "loss") == {1: None}
    assert folders_below(context) == []


def test_unknown_target_module_is_refused_with_the_models_own_list(make_job: MakeJob) -> None:
    with pytest.raises(InvalidInput) as caught:
        run_training(make_job(target_modules=["q_proj", "c_attn"]))
    (fault,) = caught.value.faults
    assert fault.field == "target_modules"
    assert "no linear module named c_attn" in fault.message
    assert "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj" in fault.message


def test_chosen_target_modules_alone_are_trained(make_job: MakeJob) -> None:
    context = make_job(max_steps=1, target_modules=["q_proj", "v_proj"])
    run_training(context)
    weights = load_file(context.folder / "adapter" / "adapter_model.safetensors")
    assert {name.split(".")[-3] for name in weights} == {"q_proj", "v_proj"}


def test_row_that_the_template_refuses_is_named(make_job: MakeJob) -> None:
    context = make_job()
    rows = [*ROWS[:5], [{"role": "user", "content": "Only a question?"}]]
    write_rows(Path(context.payload["dataset"]["path"]), rows)
    with pytest.raises(DatasetFormatError, match="row 6 cannot be used"):
        run_training(context)


def test_rows_without_an_answer_left_are_dropped_and_counted(make_job: MakeJob) -> None:
    context = make_job(max_steps=1, eval_fraction=0)
    long = [{"role": "user", "content": "word " * 200}, ROWS[0][1]]
    wordy = [ROWS[0][0], {"role": "assistant", "content": "word " * 200}]
    write_rows(Path(context.payload["dataset"]["path"]), [*ROWS[:4], long, wordy])
    summary = run_training(context)
    assert (summary["rows_train"], summary["rows_dropped"], summary["rows_truncated"]) == (5, 1, 1)
    assert summary["first_rows"] == {"dropped": [5], "truncated": [6]}


def test_nothing_left_to_learn_says_what_to_raise(make_job: MakeJob) -> None:
    with pytest.raises(DatasetFormatError, match="max_length = 8"):
        run_training(make_job(max_length=8))


def test_full_disk_is_named_before_anything_is_written(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    context = make_job(max_steps=1)
    monkeypatch.setattr(disk, "_SPARE_BYTES", 1 << 60)
    with pytest.raises(disk.DiskFull, match="of free disk space") as caught:
        run_training(context)
    assert caught.value.code == "disk_full"
    assert folders_below(context) == []


def fill_disk_at_the_end(context: JobContext, look: Callable[[float], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """From its first step on the run finds the disk full; where it waits, `look` is called instead of sleeping."""
    write = context.spool.metrics

    def fill(step: int, values: dict[str, float]) -> None:
        write(step, values)
        monkeypatch.setattr(disk, "_SPARE_BYTES", 1 << 60)

    monkeypatch.setattr(context.spool, "metrics", fill)
    monkeypatch.setattr(patience, "time", SimpleNamespace(sleep=look))


def test_full_disk_is_waited_for_with_a_word_and_nothing_is_half_written(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, notes = make_job(max_steps=1), []

    def make_room(_seconds: float) -> None:
        notes.append(read_wait(context.folder))
        assert folders_below(context) == []
        monkeypatch.setattr(disk, "_SPARE_BYTES", 0)

    fill_disk_at_the_end(context, make_room, monkeypatch)
    run_training(context)
    (note,) = notes
    assert note["kind"] == "disk_full"
    assert "of free disk space" in note["message"]
    assert "adapter" in folders_below(context)
    assert read_wait(context.folder) is None


def test_who_waits_for_disk_space_can_be_cancelled(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    context = make_job(max_steps=1)
    fill_disk_at_the_end(context, lambda _: setattr(context, "stop_request", StopRequest.CANCEL), monkeypatch)
    with pytest.raises(JobCancelled):
        run_training(context)
    assert folders_below(context) == []


def test_training_asks_nothing_of_the_network(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(*arguments: Any, **_: Any) -> None:
        asked.append(arguments)
        raise OSError("no network here")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    run_training(make_job(max_steps=1))
    assert asked == []


def test_model_without_a_chat_template_saves_the_default_with_the_adapter(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "bare", chat_template=None)
    rows = write_rows(tmp_path / "rows.jsonl")
    context = make_context(tmp_path / "job", "train", train_payload(model, rows, max_steps=1))
    run_training(context)
    assert "<|im_start|>" in AutoTokenizer.from_pretrained(context.folder / "adapter").chat_template


def test_checkpoints_of_an_earlier_attempt_do_not_outlive_a_new_ones(make_job: MakeJob) -> None:
    context = make_job(max_steps=6, save_steps=2, save_total_limit=1)
    stale = context.folder / "checkpoints" / "step-40"
    stale.mkdir(parents=True)
    run_training(context)
    assert [path.name for path in (context.folder / "checkpoints").iterdir()] == ["step-4"]


def test_the_curves_are_not_held_in_memory_too(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run over a million rows has hundreds of thousands of points."""
    held: list[int] = []
    end = SpoolCallback.on_step_end

    def watch(callback: SpoolCallback, arguments: Any, state: Any, *given: Any, **named: Any) -> None:
        held.append(len(state.log_history))
        end(callback, arguments, state, *given, **named)

    monkeypatch.setattr(SpoolCallback, "on_step_end", watch)
    run_training(make_job(max_steps=4, eval_steps=2, save_steps=2))
    assert held == [0] * 4
