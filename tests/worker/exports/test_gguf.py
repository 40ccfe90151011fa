"""A model exported as GGUF is read back by gguf and by transformers, and answers as the model that it was made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from app.core.exports.gguf_rules import find_family, read_object
from tests.worker.tiny import make_context, make_tokenizer, read_records
from worker.artifacts.folders import folder_fault, publish_artifact
from worker.exports.gguf_check import check_answers, check_tensors
from worker.exports.gguf_tensors import ExportError, Weights
from worker.exports.run import run_export

pytestmark = pytest.mark.model

LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
SHAPE = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip
MODELS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "llama": lambda shape: LlamaForCausalLM(LlamaConfig(**shape)),
    "llama3": lambda shape: LlamaForCausalLM(LlamaConfig(**shape, rope_parameters=LLAMA3)),
    "llama-heads": lambda shape: LlamaForCausalLM(LlamaConfig(**shape, head_dim=32)),
    "mistral": lambda shape: MistralForCausalLM(MistralConfig(**shape, sliding_window=None, head_dim=16)),
    "qwen2": lambda shape: Qwen2ForCausalLM(Qwen2Config(**shape)),
    "qwen3": lambda shape: Qwen3ForCausalLM(Qwen3Config(**shape, head_dim=32)),
}


def save(folder: Path, build: Callable[[dict[str, Any]], Any], *, tied: bool = True, dtype: torch.dtype) -> Path:
    """A published model folder with sharp random weights, so that a wrong order of rows shows."""
    tokenizer = make_tokenizer()
    ids = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id, "pad_token_id": None}
    torch.manual_seed(1)
    model = build({**SHAPE, "vocab_size": len(tokenizer) + 8, "tie_word_embeddings": tied, **ids})
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter) * (0.3 if parameter.ndim > 1 else 0.2) + (parameter.ndim == 1)
    with publish_artifact(folder, {"kind": "merged"}, 0) as place:
        model.to(dtype).save_pretrained(place)
        tokenizer.save_pretrained(place)
    return folder


def export(tmp_path: Path, model: Path, quantization: str) -> tuple[Any, Path]:
    payload = {
        "quantization": quantization, "name": "boxes", "file_stem": "boxes", "model_path": str(model),
        "source_job_id": 1,
    }  # fmt: skip
    context = make_context(tmp_path / "job", "export", payload)
    return run_export(context), tmp_path / "job" / "gguf"


@pytest.mark.parametrize("quantization", ["f16", "q8_0"])
@pytest.mark.parametrize("name", MODELS)
def test_each_architecture_is_read_back_as_it_was(tmp_path: Path, name: str, quantization: str) -> None:
    model = save(tmp_path / "merged", MODELS[name], dtype=torch.bfloat16)
    summary, folder = export(tmp_path, model, quantization)
    certificate = summary["certificate"]
    assert certificate["passed"]
    assert certificate["answers_compared"]
    assert certificate["relative_difference"] < (1e-3 if quantization == "f16" else 0.1)
    assert folder_fault(folder) is None
    assert sorted(path.name for path in folder.iterdir()) == ["Modelfile", f"boxes-{quantization}.gguf", "meta.json"]


@pytest.mark.parametrize("tied", [True, False])
def test_tied_weights_are_stored_once(tmp_path: Path, tied: bool) -> None:
    model = save(tmp_path / "merged", MODELS["llama"], tied=tied, dtype=torch.float32)
    _, folder = export(tmp_path, model, "f16")
    names = {tensor.name for tensor in GGUFReader(folder / "boxes-f16.gguf").tensors}
    assert ("output.weight" in names) is not tied


def test_what_another_program_needs_is_written_in_it(tmp_path: Path) -> None:
    _, folder = export(tmp_path, save(tmp_path / "merged", MODELS["llama"], dtype=torch.bfloat16), "q8_0")
    fields = GGUFReader(folder / "boxes-q8_0.gguf").fields
    read = {name: field.contents() for name, field in fields.items()}
    assert read["general.architecture"] == "llama"
    assert read["general.name"] == "boxes"
    assert (read["llama.block_count"], read["llama.context_length"]) == (2, 256)
    assert read["tokenizer.ggml.pre"] == "gpt-2"
    assert read["tokenizer.ggml.tokens"][:3] == ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    assert read["tokenizer.ggml.token_type"][:4] == [3, 3, 3, 1]
    assert read["tokenizer.ggml.token_type"][-1] == 5
    assert read["tokenizer.ggml.eos_token_id"] == 2
    assert read["tokenizer.ggml.add_bos_token"] is False
    assert "<|im_start|>" in read["tokenizer.chat_template"]


def test_it_is_announced_with_its_certificate(tmp_path: Path) -> None:
    model = save(tmp_path / "merged", MODELS["llama"], dtype=torch.bfloat16)
    context = make_context(
        tmp_path / "job", "export",
        {"quantization": "f16", "name": "n", "file_stem": "n", "model_path": str(model), "source_job_id": 1},
    )  # fmt: skip
    run_export(context)
    (told,) = (record for record in read_records(context) if record.kind == "artifact")
    assert (told.data["kind"], told.data["path"], told.data["certificate"]["passed"]) == ("gguf", "gguf", True)


def test_a_gguf_with_rows_in_another_order_does_not_pass(tmp_path: Path) -> None:
    """As a converter makes it that forgets llama.cpp's order of q and k."""
    model = save(tmp_path / "merged", MODELS["llama"], dtype=torch.bfloat16)
    _, folder = export(tmp_path, model, "f16")
    file, config = folder / "boxes-f16.gguf", read_object(model / "config.json")
    tensor = next(each for each in GGUFReader(file).tensors if each.name == "blk.0.attn_q.weight")
    with file.open("r+b") as opened:
        opened.seek(tensor.data_offset)
        content = opened.read(tensor.n_bytes)
        opened.seek(tensor.data_offset)
        opened.write(content[tensor.n_bytes // 2 :] + content[: tensor.n_bytes // 2])
    family = find_family(config)
    assert family is not None
    with Weights(model, config, family, "f16") as weights, pytest.raises(ExportError, match=r"attn_q.*differs"):
        check_tensors(file, weights)
    with pytest.raises(ExportError, match="answers otherwise"):
        check_answers(file, model, config, "f16")


def test_a_model_that_was_changed_since_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    model = save(tmp_path / "merged", MODELS["llama"], dtype=torch.bfloat16)
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ExportError, match="is not as it was saved"):
        export(tmp_path, model, "f16")
    assert not (tmp_path / "job" / "gguf").exists()


def test_values_beyond_f16_are_refused_by_name_and_nothing_is_left(tmp_path: Path) -> None:
    model = save(tmp_path / "first", MODELS["llama"], dtype=torch.float32)
    loaded = AutoModelForCausalLM.from_pretrained(model)
    loaded.model.layers[1].mlp.up_proj.weight.data[0, 0] = 1e6
    with publish_artifact(tmp_path / "merged", {"kind": "merged"}, 0) as place:
        loaded.save_pretrained(place)
        make_tokenizer().save_pretrained(place)
    with pytest.raises(ExportError, match=r"layers\.1\.mlp\.up_proj\.weight holds values that do not fit into f16"):
        export(tmp_path, tmp_path / "merged", "f16")
    assert not list((tmp_path / "job").glob("*gguf*"))


def test_where_memory_is_short_the_certificate_says_what_was_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.exports.gguf_check._fp32_bytes", lambda _folder: 10**15)
    summary, _ = export(tmp_path, save(tmp_path / "merged", MODELS["llama"], dtype=torch.bfloat16), "f16")
    assert summary["certificate"]["answers_compared"] is False
    assert "1000000.0 GB of memory" in summary["certificate"]["warning"]


def test_the_modelfile_renders_chats_as_the_model_s_own_template(tmp_path: Path) -> None:
    _, folder = export(tmp_path, save(tmp_path / "merged", MODELS["llama"], dtype=torch.bfloat16), "q8_0")
    text = (folder / "Modelfile").read_text()
    assert text.startswith("FROM ./boxes-q8_0.gguf\n")
    assert (
        '{{ if eq .Role "system" }}<|im_start|>system\n{{ .Content }}<|im_end|>\n{{ else if eq .Role "user" }}' in text
    )
    assert text.count("<|im_start|>assistant\n") == 2
    assert 'SYSTEM """Be brief."""' in text
    assert 'PARAMETER stop "<|im_end|>"' in text
    assert "PARAMETER num_ctx 256" in text
