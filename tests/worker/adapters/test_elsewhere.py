"""An adapter that was trained with plain peft is taken in, merged and verified, and trained on from where it stands."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from app.core.errors import InvalidInput, JobError
from app.core.jobs.spec import parse_spec
from tests.worker.tiny import ROWS, make_context, read_records, save_tiny_model, train_payload, write_rows
from worker.adapters.importer import run_adapter_import
from worker.artifacts.merge import run_merge
from worker.context import JobContext
from worker.training.rows import load_rows
from worker.training.train import run_training

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]
TARGETS = ["q_proj", "v_proj", "down_proj"]
SHAPE = {"r": 4, "lora_alpha": 12, "target_modules": TARGETS, "init_adapter": "7"}


def _train_plainly(model_folder: Path, folder: Path) -> None:
    """As a notebook does it: peft, a tokenizer, an optimizer, a loop."""
    torch.manual_seed(3)
    base: Any = AutoModelForCausalLM.from_pretrained(model_folder)
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    config = LoraConfig(r=4, lora_alpha=12, target_modules=TARGETS, task_type="CAUSAL_LM")
    tuned = get_peft_model(base, config)
    optimizer = torch.optim.AdamW((p for p in tuned.parameters() if p.requires_grad), lr=2e-2)
    for step in range(20):
        ids = tokenizer.apply_chat_template(ROWS[step % 4], return_tensors="pt", return_dict=True)["input_ids"]
        tuned(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    tuned.save_pretrained(folder)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("elsewhere") / "tiny")


@pytest.fixture(scope="module")
def imported(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the import job made of the zip."""
    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("imported")
    _train_plainly(base, place / "mine")
    (place / "up").mkdir()
    with zipfile.ZipFile(place / "up" / "mine.zip", "w") as archive:
        for file in (place / "mine").iterdir():
            archive.write(file, f"mine/{file.name}")
    spec = {"base_model": "tiny", "method": "lora", "task": "sft"}
    payload = {"base_model": _tiny(base), "source": str(place / "up" / "mine.zip"), "spec": spec}
    summary = run_adapter_import(make_context(place / "job", "adapter", payload))
    assert (summary["tensors"], summary["r"]) == (2 * 2 * len(TARGETS), 4)
    return place / "job" / "adapter"


@pytest.fixture
def training(base: Path, imported: Path, tmp_path: Path) -> Callable[..., JobContext]:
    """A training job that starts from the imported adapter; keywords override its spec."""

    def training(name: str = "job", **spec: Any) -> JobContext:
        values = {**SHAPE, "max_steps": 6, "eval_steps": 3, "learning_rate": 1e-3, "sample_max_new_tokens": 4, **spec}
        payload = train_payload(base, write_rows(tmp_path / "rows.jsonl"), **values)
        payload["init_adapter"] = {"job_id": 7, "path": str(imported), "sha256": "as saved"}
        return make_context(tmp_path / name, "train", payload)

    return training


def _tiny(base: Path) -> dict[str, Any]:
    return {"name": "tiny", "path": str(base), "hub_id": None}


def _eval_loss(base: Path, adapter: Path, context: JobContext) -> float:
    """Mean over the labelled tokens of the held-out rows, by plain peft and plain cross entropy."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapter)).eval()
    losses = []
    for row in load_rows(context, tokenizer, parse_spec(context.payload["spec"])).evaluation:
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([row.input_ids])).logits[0, :-1]
        losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor(row.labels[1:]), reduction="none"))
    every = torch.cat(losses)
    labelled = every[every != 0]
    return float(labelled.mean())


def _evals(context: JobContext) -> dict[int, float]:
    metrics = (record for record in read_records(context) if record.kind == "metric")
    return {record.step or 0: record.data["eval_loss"] for record in metrics if "eval_loss" in record.data}


def test_it_is_merged_and_its_certificate_passes(base: Path, imported: Path, tmp_path: Path) -> None:
    payload = {
        "base_model": _tiny(base), "adapter_path": str(imported), "adapter_job_id": 7, "dtype": "fp32",
        "held_out": None,
    }  # fmt: skip
    certificate = run_merge(make_context(tmp_path / "merge", "merge", payload))["certificate"]
    assert certificate["passed"]
    assert certificate["values_differing"] == 0
    assert certificate["greedy_tokens_equal"]
    assert certificate["adapter_effect"] > 0.01, "the adapter changes nothing, so nothing was tested"


def test_training_on_begins_where_the_adapter_stands(
    base: Path, imported: Path, training: Callable[..., JobContext]
) -> None:
    context = training()
    started = _eval_loss(base, imported, context)
    summary = run_training(context)
    evals = _evals(context)
    assert evals[0] == pytest.approx(started, rel=1e-5)
    assert evals[6] < evals[0]
    fresh = training("fresh", init_adapter=None)
    fresh.payload["init_adapter"] = None
    run_training(fresh)
    assert abs(_evals(fresh)[0] - started) > 0.01, "the base model is as good, so nothing was tested"
    config = json.loads((context.folder / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["target_modules"]) == (4, 12, sorted(TARGETS))
    assert summary["steps"] == 6


def test_what_was_trained_here_is_trained_on(training: Callable[..., JobContext]) -> None:
    first = training("first")
    run_training(first)
    second = training("second", seed=7)
    second.payload["init_adapter"] = {"job_id": 1, "path": str(first.folder / "adapter"), "sha256": "as saved"}
    run_training(second)
    receipt = json.loads((second.folder / "receipt.json").read_text())
    assert receipt["init_adapter"] == {"name": "of job 1", "sha256": "as saved"}
    third = training("third", max_steps=1, eval_steps=1)
    third.payload["init_adapter"] = {"job_id": 1, "path": str(first.folder / "adapter"), "sha256": "as saved"}
    run_training(third)
    assert _evals(third)[0] == pytest.approx(_evals(first)[6], rel=1e-6)


def test_preference_training_measures_from_the_adapter(
    base: Path, training: Callable[..., JobContext], tmp_path: Path
) -> None:
    context = training(task="dpo", max_steps=2, eval_steps=2)
    rows = [{"prompt": r[:1], "chosen": r[1:], "rejected": [{"role": "assistant", "content": "No."}]} for r in ROWS]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    context.payload["dataset"]["kind"] = "preference"
    run_training(context)
    assert _evals(context)[0] == pytest.approx(0.693147, rel=1e-5)  # no answer has gained yet


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"r": 8}, "is 4 by 32 in the adapter and 8 by 32 here"),
        ({"target_modules": [*TARGETS, "k_proj"]}, "k_proj.lora_A.weight is not in the adapter"),
        ({"target_modules": TARGETS[:2]}, "down_proj.lora_A.weight is only in the adapter"),
        ({"use_dora": True}, "lora_magnitude_vector is not in the adapter"),
    ],
)
def test_tensors_that_only_one_of_the_two_has_are_named(
    training: Callable[..., JobContext], spec: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        run_training(training(**spec))
    assert refused.value.faults[0].field == "init_adapter"
    assert said in refused.value.message


def test_an_adapter_that_was_changed_is_not_trained_on(
    training: Callable[..., JobContext], imported: Path, tmp_path: Path
) -> None:
    shutil.copytree(imported, tmp_path / "changed")
    weights = tmp_path / "changed" / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    context = training()
    context.payload["init_adapter"]["path"] = str(tmp_path / "changed")
    with pytest.raises(JobError, match="is not as it was saved"):
        run_training(context)
