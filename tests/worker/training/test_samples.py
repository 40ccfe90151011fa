"""Samples of a training: answers to the same prompts by the base and at checkpoints, which change nothing of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.core.jobs.sampling import Sampling
from tests.worker.tiny import make_context, read_records, train_payload, write_rows
from worker.base_models.publish import hash_file
from worker.context import JobContext
from worker.inference.generate import generate, load_model
from worker.training import report
from worker.training.tokenizer import load_tokenizer
from worker.training.train import run_training

pytestmark = [
    pytest.mark.model,
    # peft asks transformers by the older name
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]

MakeJob = Callable[..., JobContext]


def test_base_and_tuned_answers_stand_side_by_side(make_job: MakeJob, tiny_model: Path) -> None:
    context = make_job(max_steps=12, learning_rate=3e-2, save_steps=12)
    run_training(context)
    samples = [
        (r.step, r.data["model"], r.data["prompt"], r.data["text"]) for r in read_records(context) if r.kind == "sample"
    ]
    prompts = [sample[2] for sample in samples[::2]]
    assert len(set(prompts)) == 2
    tokenizer = load_tokenizer(tiny_model)
    base, tuned = load_model(str(tiny_model), None), load_model(str(tiny_model), str(context.folder / "adapter"))
    expected = []
    for prompt in prompts:
        for step, name, model in ((0, "base", base), (12, "tuned", tuned)):
            chat = [{"role": "user", "content": prompt}]
            answer = generate(model, tokenizer, chat, Sampling(max_new_tokens=48), lambda _tokens: False)
            expected.append((step, name, prompt, answer.text))
    assert samples == expected
    assert samples[0][3] != samples[1][3]


def told(context: JobContext) -> list[tuple[int | None, str, str, str]]:
    records = [record for record in read_records(context) if record.kind == "sample"]
    return [(r.step, r.data["model"], r.data["prompt"], r.data["text"]) for r in records]


def test_samples_are_told_of_the_base_and_of_every_checkpoint(make_job: MakeJob, tiny_model: Path) -> None:
    prompts = ["What is the colour of box 1?", "Which box is red?\nAnd why?"]
    chosen = {"sample_prompts": prompts, "sample_max_new_tokens": 5}
    context = make_job(max_steps=12, learning_rate=3e-2, save_steps=4, save_total_limit=9, **chosen)
    run_training(context)
    assert [(step, who, prompt) for step, who, prompt, _ in told(context)] == [
        *((0 if who == "base" else 4, who, prompt) for prompt in prompts for who in ("base", "tuned")),
        *((step, "tuned", prompt) for step in (8, 12) for prompt in prompts),
    ]
    tokenizer = load_tokenizer(tiny_model)
    for step, who, prompt, text in told(context):
        folder = context.folder / ("adapter" if step == 12 else f"checkpoints/step-{step}")
        model = load_model(str(tiny_model), None if who == "base" else str(folder))
        chat = [{"role": "user", "content": prompt}]
        assert text == generate(model, tokenizer, chat, Sampling(max_new_tokens=5), lambda _ids: False).text


def ask_for_samples_at(context: JobContext, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the progress of `step` is told, as a signal would."""
    write, waiting = context.spool.progress, [step]

    def progress(at: int, *rest: Any) -> None:
        write(at, *rest)
        if at in waiting:
            waiting.remove(at)
            context.sample_now = True

    monkeypatch.setattr(report, "_PROGRESS_SECONDS", 0.0)  # else not every step tells of it
    monkeypatch.setattr(context.spool, "progress", progress)


def test_samples_that_are_asked_for_come_after_the_step_in_hand_and_change_nothing(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned, rows = set(), write_rows(tmp_path / "rows.jsonl")
    spec = {"max_steps": 6, "save_steps": 50, "logging_steps": 4, "lora_dropout": 0.1, "sample_max_new_tokens": 5}
    for asked in (3, None):
        context = make_context(tmp_path / str(asked), "train", train_payload(tiny_model, rows, **spec))
        if asked:
            ask_for_samples_at(context, asked, monkeypatch)
        run_training(context)
        steps = {step for step, who, _, _ in told(context) if who == "tuned"}
        assert steps == ({3, 6} if asked else {6})
        assert not context.sample_now
        learned.add(hash_file(context.folder / "adapter/adapter_model.safetensors"))
    assert len(learned) == 1


def test_who_asks_for_samples_is_answered_where_there_are_none(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = make_job(max_steps=3, sample_max_new_tokens=0)
    ask_for_samples_at(context, 2, monkeypatch)
    run_training(context)
    assert told(context) == []
    assert [record.kind for record in read_records(context) if record.data.get("phase") == "sample"] == ["phase"]


@pytest.mark.parametrize(
    "values", [{"lora_dropout": 0.1}, {"gradient_checkpointing": True}, {"packing": True}, {"method": "full"}]
)
def test_samples_change_nothing_of_what_is_learned(tmp_path: Path, tiny_model: Path, values: dict[str, Any]) -> None:
    losses, rows = [], write_rows(tmp_path / "rows.jsonl")
    for name, tokens in (("with", 5), ("without", 0)):
        spec = {"max_steps": 6, "save_steps": 2, "sample_max_new_tokens": tokens, **values}
        context = make_context(tmp_path / name, "train", train_payload(tiny_model, rows, **spec))
        run_training(context)
        assert bool(told(context)) is bool(tokens)
        losses.append([record.data["loss"] for record in read_records(context) if "loss" in record.data])
    assert losses[0] == losses[1]
