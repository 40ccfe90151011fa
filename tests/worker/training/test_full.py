"""Training every weight: what is trained, what is saved, and that it is what any program then loads."""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from app.core.errors import JobCancelled, JobError
from tests.worker.tiny import (
    ROWS,
    make_context,
    make_model,
    make_tokenizer,
    read_records,
    save_tiny_model,
    train_payload,
    write_rows,
)
from worker import patience
from worker.artifacts.disk import DiskFull
from worker.base_models.publish import hash_file
from worker.context import JobContext, StopRequest
from worker.training import full
from worker.training.losses import Scoring, answer_loss
from worker.training.train import run_training

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]

MakeJob = Callable[..., JobContext]
Finished = tuple[JobContext, dict[str, Any]]
FULL: dict[str, Any] = {"method": "full", "learning_rate": 5e-3, "eval_fraction": 0.1}
IDS = torch.arange(3, 120).reshape(3, 39)


@pytest.fixture
def make_full(make_job: MakeJob) -> MakeJob:
    """Make a job that trains every weight."""
    return lambda **spec: make_job(**{**FULL, **spec})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A finished job on a bfloat16 base, with checkpointing, and its summary; read only."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("full")
    save_in_bf16(folder / "base")
    payload = train_payload(folder / "base", write_rows(folder / "rows.jsonl"), **FULL, gradient_checkpointing=True)
    context = make_context(folder / "job", "train", payload)
    summary = run_training(context)
    torch.set_num_threads(before)
    return context, summary


def save_in_bf16(folder: Path) -> None:
    save_tiny_model(folder)
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)


def logits_of(folder: Path) -> torch.Tensor:
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=IDS).logits
    return logits


def series(context: JobContext, name: str) -> dict[int | None, float]:
    return {r.step: r.data[name] for r in read_records(context) if r.kind == "metric" and name in r.data}


def test_loss_falls_and_base_loss_is_the_untrained_models(finished: Finished) -> None:
    context, summary = finished
    loss, eval_loss = series(context, "loss"), series(context, "eval_loss")
    assert sorted(eval_loss) == [0, 6, 12]  # type: ignore[type-var]
    assert loss[12] < loss[1] - 0.5
    assert eval_loss[12] < eval_loss[0] - 0.5
    assert (summary["train_loss"], summary["eval_loss"]) == (loss[12], eval_loss[12])


def test_every_parameter_is_trained_and_counted_once(finished: Finished) -> None:
    context, summary = finished
    base = load_file(Path(context.payload["base_model"]["path"]) / "model.safetensors")
    saved = load_file(context.folder / "checkpoints" / "step-8" / "model.safetensors")
    assert summary["trainable_parameters"] == summary["all_parameters"] == sum(t.numel() for t in base.values())
    assert saved.keys() == base.keys()
    assert [name for name in base if torch.equal(saved[name], base[name].float())] == []


def test_model_is_saved_in_the_bases_type_and_certified(finished: Finished) -> None:
    context, summary = finished
    folder = context.folder / "model"
    config = json.loads((folder / "config.json").read_text())
    assert (config["dtype"], config["use_cache"], config["tie_word_embeddings"]) == ("bfloat16", True, True)
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {torch.bfloat16}
    certificate = summary["certificate"]
    assert (certificate["passed"], certificate["dtype"], certificate["base_dtype"]) == (True, "bfloat16", "bfloat16")
    assert 0 < certificate["relative_difference"] < certificate["training_effect"] / 4
    assert summary["model_bytes"] == sum(file.stat().st_size for file in folder.iterdir())
    (artifact,) = [r.data for r in read_records(context) if r.kind == "artifact" and r.data["kind"] == "model"]
    assert artifact["certificate"] == certificate


def test_folder_holds_all_that_a_program_needs(finished: Finished) -> None:
    context, _ = finished
    for folder in (context.folder / "model", context.folder / "checkpoints" / "step-8"):
        meta = json.loads((folder / "meta.json").read_text())
        assert {file["path"] for file in meta["files"]} == {f.name for f in folder.iterdir()} - {"meta.json"}
        assert all(file["sha256"] == hash_file(folder / file["path"]) for file in meta["files"])
        model: Any = AutoModelForCausalLM.from_pretrained(folder)
        assert model.lm_head.weight is model.model.embed_tokens.weight
        assert model.generation_config.eos_token_id == 2
        assert "<|im_start|>" in AutoTokenizer.from_pretrained(folder).chat_template
        for file in folder.iterdir():
            assert str(context.folder.parent).encode() not in file.read_bytes(), file.name


def test_checkpoints_keep_fp32_and_give_way(finished: Finished) -> None:
    context, _ = finished
    checkpoints = context.folder / "checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == ["step-4", "step-8"]
    weights = load_file(checkpoints / "step-8" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert any(not torch.equal(tensor, tensor.bfloat16().float()) for tensor in weights.values())
    assert json.loads((checkpoints / "step-8" / "config.json").read_text())["dtype"] == "float32"


def test_training_that_rounding_would_swallow_is_saved_in_fp32(
    make_full: MakeJob, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_in_bf16(tmp_path / "base")
    context = make_full(max_steps=2, learning_rate=1e-6, eval_fraction=0)
    context.payload["base_model"]["path"] = str(tmp_path / "base")
    with caplog.at_level(logging.WARNING):
        certificate = run_training(context)["certificate"]
    assert (certificate["dtype"], certificate["base_dtype"], certificate["warning"]) == ("float32", "bfloat16", None)
    assert certificate["relative_difference"] < certificate["training_effect"] / 100
    assert "Rounding to bfloat16 moves the logits" in caplog.text
    assert not torch.equal(logits_of(context.folder / "model"), logits_of(tmp_path / "base"))


def test_arithmetic_in_bf16_trains_fp32_weights(make_full: MakeJob) -> None:
    losses = []
    for bf16 in (True, False):
        context = make_full(bf16=bf16, max_steps=3, eval_fraction=0)
        summary = run_training(context)
        losses.append(series(context, "loss"))
        weights = load_file(context.folder / "model" / "model.safetensors")
        (context.folder / "spool.jsonl").unlink()
        assert summary["dtype"] == ("bfloat16" if bf16 else "float32")
        assert summary["certificate"]["relative_difference"] < 1e-5, "measured in fp32, and nothing was rounded"
        assert any(not torch.equal(tensor, tensor.bfloat16().float()) for tensor in weights.values())
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=2e-2)


def test_untied_head_is_trained_on_its_own(make_full: MakeJob, tmp_path: Path) -> None:
    base = save_tiny_model(tmp_path / "untied", tied=False)
    context = make_full(max_steps=3, warmup_ratio=0)
    context.payload["base_model"]["path"] = str(base)
    run_training(context)
    before, after = (load_file(path / "model.safetensors") for path in (base, context.folder / "model"))
    assert not torch.equal(after["lm_head.weight"], before["lm_head.weight"])
    assert not torch.equal(after["lm_head.weight"], after["model.embed_tokens.weight"])


@pytest.mark.parametrize("tied", [True, False])
def test_gradients_of_every_weight_equal_the_plain_losses(tied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In chunks of 8 rows; a tied head's gradient adds to that of the embeddings."""
    monkeypatch.setattr("worker.training.losses.CHUNK_ROWS", 8)
    model = make_model(make_tokenizer(), tie_word_embeddings=tied)
    ids = torch.arange(3, 63).unsqueeze(0)
    answer_loss(model, {"input_ids": ids, "labels": ids}, Scoring.CHUNKED).backward()
    chunked = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    (model(input_ids=ids, labels=ids).loss * 59).backward()
    assert len(chunked) == (20 if tied else 21)
    for name, parameter in model.named_parameters():
        assert (chunked[name] - parameter.grad).norm() <= 1e-5 * parameter.grad.norm(), name


def test_first_step_moves_each_weight_by_the_learning_rate(make_full: MakeJob, tiny_model: Path) -> None:
    """As AdamW's first step does to all that has a gradient, whatever its size."""
    context = make_full(max_steps=1, learning_rate=1e-3, warmup_ratio=0, eval_fraction=0, weight_decay=0.0)
    run_training(context)
    before, after = (load_file(path / "model.safetensors") for path in (tiny_model, context.folder / "model"))
    steps = torch.cat([(after[name] - before[name]).flatten() for name in before])
    moved = steps[steps != 0].abs()
    assert len(moved) > 0.9 * len(steps)
    assert moved.median() == pytest.approx(1e-3, rel=1e-3)


def test_what_differs_on_disk_is_never_published(make_full: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    save = full.save_model

    def save_wrongly(model: Any, tokenizer: Any, folder: Path, dtype: torch.dtype) -> None:
        model.model.layers[1].mlp.down_proj.weight.data = torch.zeros(32, 64)
        save(model, tokenizer, folder, dtype)

    monkeypatch.setattr(full, "save_model", save_wrongly)
    context = make_full(max_steps=2, save_steps=100, eval_fraction=0)
    with pytest.raises(JobError, match="The saved model on disk differs from the trained model"):
        run_training(context)
    assert not (context.folder / "model").exists()
    assert not [r for r in read_records(context) if r.kind == "artifact"]


@pytest.mark.parametrize(("free_mib", "needed_mib", "steps"), [(70, 80, 1)])
def test_full_disk_is_told_before_training_where_it_can_be_known(
    free_mib: int, needed_mib: int, steps: int, make_full: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the end the tokenizer and the card count too."""
    usage = shutil.disk_usage(tmp_path)._replace(free=free_mib * 1024**2)
    monkeypatch.setattr("worker.artifacts.disk.shutil.disk_usage", lambda _path: usage)
    context = make_full(max_steps=1, eval_fraction=0)
    sleep = SimpleNamespace(sleep=lambda _: setattr(context, "stop_request", StopRequest.CANCEL))
    monkeypatch.setattr(patience, "time", sleep)  # once it has trained, it waits for room
    with pytest.raises((DiskFull, JobCancelled)) as caught:
        run_training(context)
    full = caught.value if isinstance(caught.value, DiskFull) else caught.value.__cause__
    assert f"model needs {needed_mib} MiB of free disk space" in str(full)
    assert len(series(context, "loss")) == steps
    assert not (context.folder / "model").exists()


def test_stop_and_save_saves_the_model_of_that_step(make_full: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    context = make_full(max_steps=50, save_steps=100, eval_steps=100)
    write = context.spool.metrics

    def stop_after_three(step: int, values: dict[str, float]) -> None:
        write(step, values)
        context.stop_request = StopRequest.SAVE if step == 3 else context.stop_request

    monkeypatch.setattr(context.spool, "metrics", stop_after_three)
    with pytest.raises(JobCancelled, match="the model is saved"):
        run_training(context)
    assert json.loads((context.folder / "model" / "meta.json").read_text())["step"] == 4


def test_preferences_are_learned_against_the_model_as_it_started(make_full: MakeJob) -> None:
    context = make_full(task="dpo", learning_rate=1e-3, max_steps=4, eval_steps=2)
    pairs = [
        {"prompt": row[:1], "chosen": row[1:], "rejected": [{"role": "assistant", "content": f"No idea {i}."}]}
        for i, row in enumerate(ROWS)
    ]
    Path(context.payload["dataset"]["path"]).write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    context.payload["dataset"]["kind"] = "preference"
    run_training(context)
    loss, margin = series(context, "eval_loss"), series(context, "eval_rewards_margin")
    assert (loss[0], margin[0]) == (pytest.approx(math.log(2)), 0)
    assert loss[4] < loss[2] < loss[0]
    assert margin[4] > margin[2] > 0


def test_samples_are_the_bases_and_then_the_trained_models(finished: Finished) -> None:
    context, _ = finished
    samples = [(r.step, r.data["model"]) for r in read_records(context) if r.kind == "sample"]
    assert samples == [(0, "base")] * 2 + [(step, "tuned") for step in (4, 8, 12) for _ in range(2)]
