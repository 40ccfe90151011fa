"""DPO: the loss on pairs computed by hand, the reference without a second model, and whole jobs."""

from __future__ import annotations

import gc
import json
import logging
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from app.core.errors import JobCancelled
from tests.worker.encoders import encode_pair
from tests.worker.tiny import ROWS, make_context, make_model, make_tokenizer, read_records, train_payload
from worker.base_models.publish import hash_file
from worker.context import JobContext, StopRequest
from worker.spool import SpoolWriter
from worker.training import preference
from worker.training.attention import attention_per_row, proves_isolation
from worker.training.batches import Collator, FlatCollator
from worker.training.data import encode_row
from worker.training.losses import Scoring
from worker.training.pairs import EncodedPair
from worker.training.preference import PairCollator, RewardMeans, pair_logps, preference_losses
from worker.training.train import run_training

pytestmark = [
    pytest.mark.model,
    # peft asks transformers by the older name
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]

MakeJob = Callable[..., JobContext]


def say(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


PAIRS = [(row[:1], row[1:], say("No idea. " * (1 + number % 3))) for number, row in enumerate(ROWS)]


@pytest.fixture
def make_pairs_job(tiny_model: Path, tmp_path: Path) -> MakeJob:
    """Make a DPO job's context; keywords override the spec."""
    numbers = iter(range(100))

    def make(**spec: Any) -> JobContext:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        rows = folder / "rows.jsonl"
        lines = (json.dumps(dict(zip(("prompt", "chosen", "rejected"), pair, strict=True))) + "\n" for pair in PAIRS)
        rows.write_text("".join(lines), encoding="utf-8")
        payload = train_payload(tiny_model, rows, **{"task": "dpo", "learning_rate": 1e-3, "save_steps": 100, **spec})
        return make_context(folder / "job", "train", payload)

    return make


def series(context: JobContext, name: str) -> dict[int | None, float]:
    return {r.step: r.data[name] for r in read_records(context) if r.kind == "metric" and name in r.data}


def phases(context: JobContext) -> list[str]:
    return [record.data["phase"] for record in read_records(context) if record.kind == "phase"]


def plain_logp(model: Any, tokenizer: Any, prompt: Any, answer: Any) -> torch.Tensor:
    """Log-probability of an answer and its end of turn, one token after the other, from whole logits."""
    start = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True)["input_ids"]
    ids = start + tokenizer(answer[0]["content"] + "<|im_end|>", add_special_tokens=False)["input_ids"]
    logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].double()
    return torch.stack([logits[i - 1].log_softmax(-1)[ids[i]] for i in range(len(start), len(ids))]).sum()


def test_loss_of_a_pair_computed_by_hand() -> None:
    """Margins of 0.5 · ((-10 + 12) - (-30 + 31)) = 0.5, 0 and -0.75; -log sigmoid(0.5) = log(1 + exp(-0.5))."""
    policy = torch.tensor([[-10.0, -30.0], [-5.0, -6.0], [-7.0, -4.0]])
    reference = torch.tensor([[-12.0, -31.0], [-5.0, -6.0], [-6.0, -4.5]])
    losses, rewards = preference_losses(policy, reference, beta=0.5)
    assert losses.tolist() == pytest.approx([0.47407698, math.log(2), 1.13687101], rel=1e-6)
    assert rewards.tolist() == [[1.0, 0.5], [0.0, 0.0], [-0.5, 0.25]]


def test_gradient_raises_the_chosen_and_lowers_the_rejected_answer() -> None:
    """Each by beta · sigmoid(-margin): the further apart the two are, the weaker."""
    policy = torch.tensor([[-10.0, -30.0]], requires_grad=True)
    losses, _ = preference_losses(policy, torch.tensor([[-12.0, -31.0]]), beta=0.5)
    (gradient,) = torch.autograd.grad(losses.sum(), policy)
    assert gradient[0].tolist() == pytest.approx([-0.5 / (1 + math.exp(0.5)), 0.5 / (1 + math.exp(0.5))], rel=1e-6)


@pytest.mark.parametrize("flat", [True, False])
def test_log_probabilities_are_those_of_the_answers_token_by_token(flat: bool) -> None:
    tokenizer = make_tokenizer()
    model = make_model(tokenizer)
    expected = torch.stack(
        [plain_logp(model, tokenizer, prompt, answer) for prompt, *answers in PAIRS[:3] for answer in answers]
    )
    pairs = [EncodedPair(n, *encode_pair(tokenizer, pair, 128)) for n, pair in enumerate(PAIRS[:3])]
    weight = model.model.layers[0].mlp.up_proj.weight
    share = torch.linspace(-1, 1, 6).view(3, 2)
    (wanted,) = torch.autograd.grad((expected.view(3, 2) * share).sum(), weight)
    for scoring in Scoring:
        if flat:
            with attention_per_row(model):
                logps = pair_logps(model, PairCollator(FlatCollator())(pairs), scoring)
                (gradient,) = torch.autograd.grad((logps * share).sum(), weight)
        else:
            logps = pair_logps(model, PairCollator(Collator(tokenizer.pad_token_id))(pairs), scoring)
            (gradient,) = torch.autograd.grad((logps * share).sum(), weight)
        torch.testing.assert_close(logps.double(), expected.view(3, 2), rtol=1e-5, atol=0)
        assert (gradient - wanted).norm() <= 1e-5 * wanted.norm()


def test_means_weigh_each_step_alike() -> None:
    """Two steps: one of two pairs in micro-batches of one, one of a single pair."""
    means = RewardMeans()
    losses, rewards = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([[1.0, 0.0], [0.0, 2.0], [4.0, 1.0]])
    for pair, weight in ((0, 0.5), (1, 0.5), (2, 1.0)):
        means.add(losses[pair : pair + 1], rewards[pair : pair + 1], weight)
    assert means.take() == {
        "loss": 3.75,
        "rewards_chosen": 2.25,
        "rewards_rejected": 1.0,
        "rewards_margin": 1.25,
        "rewards_accuracy": 0.75,
    }
    assert means.take() == {}


def test_margin_rises_from_nothing_and_loss_falls_from_log_2(make_pairs_job: MakeJob) -> None:
    context = make_pairs_job(max_steps=12, eval_steps=6)
    summary = run_training(context)
    loss, margin = series(context, "loss"), series(context, "rewards_margin")
    eval_loss, eval_margin = series(context, "eval_loss"), series(context, "eval_rewards_margin")
    assert loss[1] == pytest.approx(math.log(2), rel=1e-6)
    assert margin[1] == 0
    assert sorted(eval_loss) == [0, 6, 12]  # type: ignore[type-var]
    assert (eval_loss[0], eval_margin[0]) == (pytest.approx(math.log(2), rel=1e-6), 0)
    assert eval_margin[12] > eval_margin[6] > 0.05
    assert margin[12] > 0.05
    chosen, rejected = series(context, "rewards_chosen"), series(context, "rewards_rejected")
    assert all(margin[step] == pytest.approx(chosen[step] - rejected[step], abs=1e-6) for step in margin)
    assert series(context, "rewards_accuracy")[12] == 1
    names = ("rewards_margin", "rewards_accuracy", "eval_rewards_margin", "eval_rewards_accuracy")
    assert [summary[name] for name in names] == [series(context, name)[12] for name in names]
    assert (summary["row_unit"], summary["rows_train"], summary["rows_eval"]) == ("pair", 22, 2)
    assert "reference" not in phases(context)


def test_reward_is_what_the_saved_adapter_gained_over_the_base_model(make_pairs_job: MakeJob, tiny_model: Path) -> None:
    """Recomputed from the saved files alone, by other code."""
    context = make_pairs_job(max_steps=6, eval_fraction=0.05)
    run_training(context)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    (prompt,) = [r.data["prompt"] for r in read_records(context) if r.kind == "sample" and r.data["model"] == "base"]
    (pair,) = [pair for pair in PAIRS if pair[0][0]["content"] == prompt]
    with torch.inference_mode():
        before = [plain_logp(model, tokenizer, pair[0], answer) for answer in pair[1:]]
        tuned = PeftModel.from_pretrained(model, str(context.folder / "adapter")).eval()
        after = [plain_logp(tuned, tokenizer, pair[0], answer) for answer in pair[1:]]
    margin = 0.1 * float((after[0] - before[0]) - (after[1] - before[1]))
    assert series(context, "eval_rewards_margin")[6] == pytest.approx(margin, rel=1e-3)
    assert series(context, "eval_loss")[6] == pytest.approx(math.log1p(math.exp(-margin)), rel=1e-5)


def test_reference_is_the_base_model_and_no_second_copy(
    make_pairs_job: MakeJob, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within each step it is what the model on disk says; there are no more parameters than base and adapter have."""
    context, seen = make_pairs_job(max_steps=2, eval_fraction=0, warmup_ratio=0), []
    compare = preference.preference_losses

    def watch(policy: torch.Tensor, reference: torch.Tensor, beta: float) -> Any:
        seen.append((policy.detach(), reference))
        return compare(policy, reference, beta)

    def watch_batches(model: Any, batch: Any, scoring: Scoring) -> torch.Tensor:
        batches.append(batch)
        return pair_logps(model, batch, scoring)

    batches: list[Any] = []
    monkeypatch.setattr(preference, "pair_logps", watch_batches)
    monkeypatch.setattr(preference, "preference_losses", watch)
    summary = run_training(context)
    base = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    for (policy, reference), batch in zip(seen, batches[::2], strict=True):
        with torch.inference_mode(), attention_per_row(base):
            torch.testing.assert_close(reference, pair_logps(base, batch, Scoring.WHOLE), rtol=1e-5, atol=0)
        assert not reference.requires_grad
        assert policy.shape == (4, 2)
    assert not torch.allclose(*seen[-1], rtol=1e-4)
    adapted = get_peft_model(base, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    assert summary["all_parameters"] == sum(p.numel() for p in adapted.parameters())


def test_no_weights_are_held_beside_those_of_model_and_adapter(make_pairs_job: MakeJob) -> None:
    def held_bytes() -> int:
        gc.collect()
        parameters = (each for each in gc.get_objects() if type(each) is torch.nn.Parameter)
        return sum({each.data_ptr(): each.nbytes for each in parameters}.values())

    context, held, before = make_pairs_job(max_steps=2, eval_fraction=0), [], held_bytes()
    write = context.spool.metrics

    def metrics(step: int, values: dict[str, float]) -> None:
        held.append(held_bytes() - before)
        write(step, values)

    context.spool.metrics = metrics  # type: ignore[method-assign]
    summary = run_training(context)
    assert held == [4 * summary["all_parameters"]] * 2


def test_accumulated_pairs_give_the_losses_and_rewards_of_one_batch(make_pairs_job: MakeJob) -> None:
    """The last step has four pairs, once as three and one: a mean of means would differ."""
    found = []
    for batch, accumulation in ((6, 1), (3, 2)):
        context = make_pairs_job(
            max_steps=4, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation
        )
        run_training(context)
        found.append({name: series(context, name) for name in ("loss", "grad_norm", "rewards_margin")})
    for name in ("loss", "grad_norm", "rewards_margin"):
        assert found[1][name] == pytest.approx(found[0][name], rel=1e-4, abs=1e-6)


def test_flattened_and_padded_pairs_give_the_same_losses(
    make_pairs_job: MakeJob, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    found = []
    for flat, checkpointing in ((True, True), (False, False)):
        monkeypatch.setattr("worker.training.batches.proves_isolation", proves_isolation if flat else lambda *_: False)
        context = make_pairs_job(max_steps=3, gradient_checkpointing=checkpointing)
        run_training(context)
        found.append([series(context, name) for name in ("loss", "eval_loss")])
    assert caplog.text.count("batches are flattened") == 1
    for flattened, padded in zip(*found, strict=True):
        assert flattened == pytest.approx(padded, rel=1e-5)


def test_references_taken_before_training_are_those_of_the_adapter_off(
    make_pairs_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for stays in (True, False):
        monkeypatch.setattr("worker.training.run.base_stays", lambda _spec, stays=stays: stays)
        context = make_pairs_job(max_steps=7, eval_steps=7, lora_dropout=0.1, num_train_epochs=2)
        run_training(context)
        found.append([series(context, name) for name in ("loss", "rewards_margin", "eval_loss")])
        assert ("reference" in phases(context)) is not stays
    for ours, theirs in zip(*found, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("variant", [{"init_lora_weights": "pissa"}, {"bias": "all"}])
def test_a_start_that_the_base_model_is_not_is_kept_as_reference(
    make_pairs_job: MakeJob, variant: dict[str, str]
) -> None:
    """Were the reference the model with the adapter off, the first loss would not be log 2."""
    context = make_pairs_job(max_steps=4, eval_steps=4, **variant)
    run_training(context)
    order = phases(context)
    assert order.index("reference") < order.index("train")
    assert series(context, "loss")[1] == pytest.approx(math.log(2), rel=1e-6)
    assert series(context, "eval_loss")[0] == pytest.approx(math.log(2), rel=1e-5)
    assert series(context, "rewards_margin")[4] > 0.01


def test_policy_and_reference_are_computed_in_one_type(make_pairs_job: MakeJob) -> None:
    """Weights in fp32, arithmetic in bfloat16: a head in fp32 for the one alone would begin with a margin."""
    context = make_pairs_job(method="full", bf16=True, max_steps=2, eval_steps=2)
    run_training(context)
    assert series(context, "loss")[1] == pytest.approx(math.log(2), rel=1e-6)
    assert (series(context, "rewards_margin")[1], series(context, "eval_rewards_margin")[0]) == (0, 0)


def test_cancel_while_references_are_taken(make_pairs_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    context = make_pairs_job(init_lora_weights="pissa")
    phase = context.spool.phase

    def cancel(name: str) -> None:
        phase(name)
        if name == "reference":
            context.stop_request = StopRequest.CANCEL

    monkeypatch.setattr(context.spool, "phase", cancel)
    with pytest.raises(JobCancelled):
        run_training(context)
    assert "train" not in phases(context)


def test_dropout_is_in_the_policy_and_not_in_the_reference(
    make_pairs_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here in the base model's attention: with the B matrices still zero, the adapter's own would not show."""
    references = []
    compare = preference.preference_losses

    def watch(policy: torch.Tensor, reference: torch.Tensor, beta: float) -> Any:
        references.append(reference)
        return compare(policy, reference, beta)

    monkeypatch.setattr(preference, "preference_losses", watch)
    plain, dropped = (make_pairs_job(max_steps=1, eval_fraction=0) for _ in range(2))
    copy = shutil.copytree(dropped.payload["base_model"]["path"], dropped.folder / "model")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "attention_dropout": 0.5}))
    dropped.payload["base_model"]["path"] = str(copy)
    for context in (plain, dropped):
        run_training(context)
    assert series(plain, "rewards_margin")[1] == 0
    assert series(dropped, "rewards_margin")[1] != 0
    torch.testing.assert_close(*references)


def test_tokens_count_both_sides(make_pairs_job: MakeJob, tiny_model: Path) -> None:
    context = make_pairs_job(max_steps=None, num_train_epochs=1, eval_fraction=0)
    summary = run_training(context)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    sides = [encode_row(tokenizer, [*prompt, *answer], 128) for prompt, *answers in PAIRS for answer in answers]
    assert summary["tokens"] == sum(len(side.input_ids) for side in sides)
    assert summary["trained_tokens_per_epoch"] == sum(side.trained_tokens for side in sides)


@pytest.mark.parametrize("variant", ["default", "pissa"])
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(
    make_pairs_job: MakeJob, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    """To the last bit, though the references of the second attempt are taken anew."""
    spec = {"max_steps": 6, "eval_steps": 3, "save_steps": 2, "lora_dropout": 0.1, "init_lora_weights": variant}
    whole, broken = make_pairs_job(**spec), make_pairs_job(**spec)
    run_training(whole)
    write = broken.spool.metrics

    def cut(step: int, values: dict[str, float]) -> None:
        if step == 5:
            raise OSError("power cut")
        write(step, values)

    monkeypatch.setattr(broken.spool, "metrics", cut)
    with pytest.raises(OSError, match="power cut"):
        run_training(broken)
    spool = broken.folder / "spool-2.jsonl"
    again = JobContext(replace(broken.assignment, attempt=2, spool=str(spool)), SpoolWriter(spool))
    assert run_training(again)["resumed_from_step"] == 4
    for name in ("loss", "rewards_margin", "eval_loss", "eval_rewards_margin"):
        late = {step: value for step, value in series(whole, name).items() if step in (5, 6)}
        assert series(again, name) == late
    weights = [hash_file(job.folder / "adapter" / "adapter_model.safetensors") for job in (whole, again)]
    assert weights[0] == weights[1]
