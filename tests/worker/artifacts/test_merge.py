"""Merged models, loaded from disk by plain transformers, against base and adapter."""

from __future__ import annotations

import json
import logging
import shutil
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from app.core.errors import JobCancelled, MergeError
from tests.worker.artifacts.conftest import Trained, merge_job
from tests.worker.tiny import read_records, train_payload, write_rows
from worker.artifacts import merge as subject
from worker.artifacts import proving
from worker.artifacts.adapter_tensors import NotStreamable
from worker.artifacts.certificate import prove
from worker.artifacts.deltas import LowRank
from worker.artifacts.merge import run_merge
from worker.base_models.publish import hash_file
from worker.context import StopRequest
from worker.inference.generate import load_model
from worker.training.quantization import find_quantization

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
IDS = torch.arange(3, 120).reshape(3, 39)


@pytest.fixture
def apart() -> None:
    """The test has its proofs made as jobs have them."""


@pytest.fixture(autouse=True)
def proof_at_hand(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof without a process of its own, which takes seconds to start; except in tests that use `apart`."""

    def prove_here(task: dict[str, Any], check_stop: Callable[[], None]) -> dict[str, Any]:
        check_stop()
        return prove(task)

    if "apart" not in request.fixturenames:
        monkeypatch.setattr(subject, "prove_apart", prove_here)


def tuned_logits(trained: Trained) -> torch.Tensor:
    base = AutoModelForCausalLM.from_pretrained(trained.model)
    model = PeftModel.from_pretrained(base, str(trained.adapter)).eval()
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=IDS).logits
    return logits


def merged_logits(folder: Path) -> torch.Tensor:
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=IDS).logits
    return logits


@pytest.mark.parametrize(("dtype", "bits"), [("bf16", 8), ("fp16", 11), ("fp32", 23)])
def test_logits_equal_base_and_adapter_within_rounding(dtype: str, bits: int, trained: Trained, tmp_path: Path) -> None:
    context = merge_job(trained, tmp_path, dtype)
    run_merge(context)
    expected, merged = tuned_logits(trained), merged_logits(context.folder / "merged")
    base: Any = AutoModelForCausalLM.from_pretrained(trained.model).eval()
    effect = (base(input_ids=IDS).logits.detach() - expected).abs().max()
    error = (expected - merged).abs().max()
    assert error <= 32 * 2.0**-bits * expected.abs().max()
    assert error < effect / 10, "the adapter's own effect must stand out from the rounding"


def test_qlora_is_merged_into_the_base_that_it_was_trained_on(trained_quantised: Trained, tmp_path: Path) -> None:
    """The quantised weights, dequantised: the original ones with the same adapter are another model."""
    context = merge_job(trained_quantised, tmp_path, "fp32")
    certificate = run_merge(context)["certificate"]
    spec = json.loads((trained_quantised.adapter / "meta.json").read_text())["spec"]
    as_trained = load_model(str(trained_quantised.model), str(trained_quantised.adapter), find_quantization(spec))
    with torch.inference_mode():
        expected = as_trained(input_ids=IDS).logits
    difference = (merged_logits(context.folder / "merged") - expected).abs()
    kind = "int8" if spec["load_in_8bit"] else "nf4"
    assert certificate["base"] == f"dequantised {kind}"
    assert difference.max() < (0.05 if kind == "int8" else 1e-4) * expected.abs().max()
    assert (tuned_logits(trained_quantised) - expected).abs().mean() > 1.3 * difference.mean()
    config = json.loads((context.folder / "merged" / "config.json").read_text())
    assert "quantization_config" not in config


def test_qlora_answers_as_trained_within_little_and_tells_the_loss_on_both_bases(
    trained_quantised: Trained, tmp_path: Path
) -> None:
    """Rounded to 16 bits, the dequantised base with the adapter is the model that was trained; the original is not."""
    payload = train_payload(trained_quantised.model, write_rows(tmp_path / "rows.jsonl"))
    held_out = {"path": payload["dataset"]["path"], "sha256": None, "spec": payload["spec"]}
    default = run_merge(merge_job(trained_quantised, tmp_path / "default", held_out=held_out))["certificate"]
    other = run_merge(merge_job(trained_quantised, tmp_path / "other", onto="original", held_out=held_out))[
        "certificate"
    ]
    assert default["kl_divergence"] <= 2e-4
    assert (other["base"], other["passed"]) == ("original", True)
    for certificate, onto in ((default, "dequantised"), (other, "original")):
        losses = certificate["eval_loss"]
        assert losses["base_and_adapter"] == losses[onto]
        if default["base"] == "dequantised nf4":  # 8 bits change less than rounding to 16 does
            assert abs(losses["merged"] - losses[onto]) < abs(losses["original"] - losses["dequantised"])
    assert default["eval_loss"]["original"] == pytest.approx(other["eval_loss"]["original"], abs=1e-9)
    assert default["eval_loss"]["dequantised"] == pytest.approx(other["eval_loss"]["dequantised"], abs=1e-9)


def test_what_cannot_be_streamed_goes_through_peft_and_says_so(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise NotStreamable("it is a riddle")

    streamed = merge_job(trained, tmp_path / "streamed")
    run_merge(streamed)
    monkeypatch.setattr(subject, "make_plan", refuse)
    context = merge_job(trained, tmp_path / "peft")
    certificate = run_merge(context)["certificate"]
    assert (certificate["how"], certificate["values_differing"]) == ("through peft, since it is a riddle", 0)
    one, other = (load_file(c.folder / "merged" / "model.safetensors") for c in (streamed, context))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_licence_and_template_for_older_readers_are_carried_over(trained: Trained, tmp_path: Path) -> None:
    base = Path(shutil.copytree(trained.model, tmp_path / "base"))
    (base / "LICENSE.txt").write_text("Do good.")
    (base / "README.md").write_text(
        "---\nlicense: apache-2.0\ntags: [x]\n---\n\n# A model\nlicense: no line of its head\n"
    )
    context = merge_job(replace(trained, model=base), tmp_path)
    run_merge(context)
    merged = context.folder / "merged"
    assert (merged / "LICENSE.txt").read_text() == "Do good."
    card = (merged / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\nbase_model: tiny\n")
    assert card.count("license: ") == 1
    template = (merged / "chat_template.jinja").read_text()
    assert json.loads((merged / "tokenizer_config.json").read_text())["chat_template"] == template


def test_weights_are_added_in_fp32_and_rounded_once(trained: Trained, tmp_path: Path) -> None:
    """W + (alpha / r) · B · A, in plain torch. Source: https://arxiv.org/abs/2106.09685."""
    context = merge_job(trained, tmp_path)
    run_merge(context)
    base, adapter = (
        load_file(trained.model / "model.safetensors"),
        load_file(trained.adapter / "adapter_model.safetensors"),
    )
    merged = load_file(context.folder / "merged" / "model.safetensors")
    config = json.loads((trained.adapter / "adapter_config.json").read_text())
    assert set(merged) == set(base)
    changed = 0
    for name, weight in base.items():
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{stem}.lora_A.weight" in adapter:
            scale = config["lora_alpha"] / config["r"]
            weight = weight + scale * adapter[f"{stem}.lora_B.weight"] @ adapter[f"{stem}.lora_A.weight"]
            changed += 1
        torch.testing.assert_close(merged[name].float(), weight, rtol=2.0**-8, atol=1e-6)
        assert (merged[name] != weight.bfloat16()).float().mean() < 0.01
    assert changed == 14


def test_folder_holds_all_that_a_program_needs(trained: Trained, tmp_path: Path) -> None:
    context = merge_job(trained, tmp_path)
    run_merge(context)
    merged = context.folder / "merged"
    assert (
        AutoTokenizer.from_pretrained(merged).chat_template
        == AutoTokenizer.from_pretrained(trained.model).chat_template
    )
    assert GenerationConfig.from_pretrained(merged).eos_token_id == 2
    config = json.loads((merged / "config.json").read_text())
    assert (config["dtype"], config["use_cache"], config["tie_word_embeddings"]) == ("bfloat16", True, True)
    meta = json.loads((merged / "meta.json").read_text())
    assert {file["path"] for file in meta["files"]} == {f.name for f in merged.iterdir()} - {"meta.json"}
    assert meta["certificate"]["passed"]
    for file in merged.iterdir():
        assert str(tmp_path).encode() not in file.read_bytes(), file.name


def test_vocabulary_keeps_its_size_and_tied_embeddings_stay_tied(trained: Trained, tmp_path: Path) -> None:
    context = merge_job(trained, tmp_path)
    run_merge(context)
    base = load_file(trained.model / "model.safetensors")
    merged = load_file(context.folder / "merged" / "model.safetensors")
    assert merged["model.embed_tokens.weight"].shape == base["model.embed_tokens.weight"].shape
    assert "lm_head.weight" not in merged
    model: Any = AutoModelForCausalLM.from_pretrained(context.folder / "merged")
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_merging_asks_nothing_of_the_network(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(*arguments: Any, **_: Any) -> None:
        asked.append(arguments)
        raise OSError("no network here")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    run_merge(merge_job(trained, tmp_path))
    assert asked == []


def test_untied_head_stays_its_own(trained_untied: Trained, tmp_path: Path) -> None:
    context = merge_job(trained_untied, tmp_path)
    run_merge(context)
    merged = load_file(context.folder / "merged" / "model.safetensors")
    assert not torch.equal(merged["lm_head.weight"], merged["model.embed_tokens.weight"])
    expected = tuned_logits(trained_untied)
    error = (expected - merged_logits(context.folder / "merged")).square().mean().sqrt()
    assert error <= 4 * 2.0**-8 * expected.std(), "bf16 keeps eight bits"


def test_certificate_phases_and_progress(trained: Trained, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    context = merge_job(trained, tmp_path)
    summary = run_merge(context)
    records = read_records(context)
    assert [r.data["phase"] for r in records if r.kind == "phase"] == ["load", "merge", "verify"]
    assert [(r.step, r.data["max_steps"]) for r in records if r.kind == "progress"] == [(n, 3) for n in range(4)]
    (artifact,) = [r.data for r in records if r.kind == "artifact"]
    certificate = artifact["certificate"]
    assert (artifact["kind"], artifact["path"]) == ("merged", "merged")
    assert certificate == summary["certificate"]
    assert (certificate["passed"], certificate["greedy_tokens_equal"], certificate["dtype"]) == (True, True, "bfloat16")
    assert 0 < certificate["mean_logit_difference"] < certificate["max_logit_difference"] < 0.05
    assert (certificate["vocabulary_size"], certificate["compared_tokens"] > 24) == (351, True)
    assert certificate["adapter_effect"] > 10 * certificate["relative_difference"]
    assert (
        "verified: the merged model on disk, in bfloat16, answers as base and adapter; its logits are 0." in caplog.text
    )
    assert (certificate["warning"], certificate["base"]) == (None, "as registered")


def shrink(trained: Trained, folder: Path, factor: float) -> Trained:
    """The same adapter, doing that much less."""
    small = shutil.copytree(trained.adapter, folder / "small")
    tensors = load_file(small / "adapter_model.safetensors")
    shrunk = {name: tensor * (factor if "lora_B" in name else 1) for name, tensor in tensors.items()}
    save_file(shrunk, small / "adapter_model.safetensors", metadata={"format": "pt"})
    meta = json.loads((small / "meta.json").read_text())
    weights = next(file for file in meta["files"] if file["path"] == "adapter_model.safetensors")
    weights["sha256"] = hash_file(small / "adapter_model.safetensors")
    (small / "meta.json").write_text(json.dumps(meta))
    return replace(trained, adapter=small)


def test_rounding_that_swallows_a_small_update_is_warned_of(trained: Trained, tmp_path: Path) -> None:
    """An update far below bf16's eight bits is lost in them, and kept in fp32."""
    changed = shrink(trained, tmp_path, 1e-5)
    rounded = run_merge(merge_job(changed, tmp_path / "bf16", "bf16"))["certificate"]
    exact = run_merge(merge_job(changed, tmp_path / "fp32", "fp32"))["certificate"]
    assert rounded["passed"]
    assert "Merge in fp32" in rounded["warning"]
    assert exact["warning"] is None
    assert exact["adapter_effect"] == rounded["adapter_effect"] < rounded["relative_difference"]


def _rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _cut_vocabulary(folder: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(343)
    model.save_pretrained(folder)


def _end_elsewhere(folder: Path) -> None:
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": 7}))


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a tensor lost": (
        lambda folder: _rewrite(folder, lambda weights: weights["model.layers.1.mlp.down_proj.weight"].zero_()),
        r"model\.layers\.1\.mlp\.down_proj\.weight on disk is not the sum of base and adapter",
    ),
    "a bit turned": (
        lambda folder: _rewrite(folder, lambda weights: weights["model.norm.weight"][3:4].mul_(1.02)),
        r"model\.norm\.weight on disk is not the sum .* 1 of its 32 values differ",
    ),
    "a tensor missing": (
        lambda folder: _rewrite(folder, lambda weights: weights.pop("model.norm.weight")),
        r"does not load whole: missing keys: model\.norm\.weight",
    ),
    "vocabulary cut": (_cut_vocabulary, "has 343 words, base and adapter 351"),
    "another template": (
        lambda folder: (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}"),
        "has another chat template than the adapter",
    ),
    "another end": (_end_elsewhere, r"does not stop at \[2\], where answers end \(it does at \[7\]\)"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_differs_on_disk_is_named_and_never_published(
    fault: str, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil, message = FAULTS[fault]

    def write_card(folder: Path, *_: Any, **__: Any) -> None:
        spoil(folder)  # the last that is done before the proof

    monkeypatch.setattr(subject, "write_card", write_card)
    context = merge_job(trained, tmp_path)
    with pytest.raises(MergeError, match=message):
        run_merge(context)
    assert not [path for path in context.folder.iterdir() if path.is_dir()]
    assert not [r for r in read_records(context) if r.kind == "artifact"]


def test_an_adapter_that_does_little_is_missed_where_it_was_lost(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounding moves the logits by more than this adapter does; weight by weight it shows."""
    small = shrink(trained, tmp_path, 1e-2)
    monkeypatch.setattr(LowRank, "apply", lambda *_: None)
    with pytest.raises(MergeError, match="is not the sum of base and adapter"):
        run_merge(merge_job(small, tmp_path))


@pytest.mark.usefixtures("apart")
def test_a_process_of_its_own_proves_it_and_says_what_differs(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With rows that were held out, whose loss the certificate tells."""
    payload = train_payload(trained.model, write_rows(tmp_path / "rows.jsonl"))
    held_out = {"path": payload["dataset"]["path"], "sha256": None, "spec": payload["spec"]}
    context = merge_job(trained, tmp_path / "good", held_out=held_out)
    certificate = run_merge(context)["certificate"]
    losses = certificate["eval_loss"]
    assert (certificate["passed"], losses["rows"], certificate["greedy_tokens_same"]) == (True, 2, 24)
    assert 0 < abs(losses["merged"] - losses["base_and_adapter"]) < 0.02
    meta = json.loads((context.folder / "merged" / "meta.json").read_text())
    assert {f["path"]: f["sha256"] for f in meta["files"]} == {
        f.name: hash_file(f) for f in (context.folder / "merged").iterdir() if f.name != "meta.json"
    }
    monkeypatch.setattr(LowRank, "apply", lambda *_: None)
    with pytest.raises(MergeError, match="is not the sum of base and adapter"):
        run_merge(merge_job(trained, tmp_path / "bad"))


@pytest.mark.usefixtures("apart")
def test_a_proof_that_is_killed_or_stopped_leaves_nothing(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proving, "PROOF_COMMAND", (sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"))
    context = merge_job(trained, tmp_path / "killed")
    with pytest.raises(MergeError, match=r"ended with code -9\. It was killed: there was too little memory"):
        run_merge(context)
    assert not [path for path in context.folder.iterdir() if path.is_dir()]
    monkeypatch.setattr(proving, "PROOF_COMMAND", (sys.executable, "-c", "import time; time.sleep(600)"))
    monkeypatch.setattr(proving, "_POLL_SECONDS", 0.01)
    context = merge_job(trained, tmp_path / "stopped")

    def stop(phase: str, enter: Callable[[str], None] = context.spool.phase) -> None:
        enter(phase)
        if phase == "verify":
            threading.Timer(0.3, lambda: setattr(context, "stop_request", StopRequest.CANCEL)).start()

    monkeypatch.setattr(context.spool, "phase", stop)
    with pytest.raises(JobCancelled):
        run_merge(context)
    assert not [path for path in context.folder.iterdir() if path.is_dir()]


@pytest.mark.parametrize("phase", ["load", "merge", "verify"])
def test_cancel_leaves_nothing(phase: str, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = merge_job(trained, tmp_path)
    enter = context.spool.phase

    def cancel_in_phase(name: str) -> None:
        enter(name)
        if name == phase:
            context.stop_request = StopRequest.CANCEL

    monkeypatch.setattr(context.spool, "phase", cancel_in_phase)
    with pytest.raises(JobCancelled):
        run_merge(context)
    assert not [path for path in context.folder.iterdir() if path.is_dir()]
