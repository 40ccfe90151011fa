"""A GGUF becomes a plain model folder: the same weights, tokenizer and chat template, and it loads as any other."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from app.core.errors import JobCancelled, ModelLoadError
from tests.worker.base_models.tiny_gguf import write_gguf
from tests.worker.tiny import make_context, make_model, make_tokenizer, read_records
from worker.base_models import gguf as gguf_module
from worker.base_models.gguf import STAGES, convert_gguf, dense_model, find_or_convert, hash_gguf, verify_converted
from worker.base_models.stages import Stages
from worker.context import StopRequest

pytestmark = pytest.mark.model
QUESTION = [{"role": "user", "content": "What is the colour of box 3?"}]


def _stages(folder: Path) -> Stages:
    return Stages(make_context(folder, "import", {}), STAGES)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    tokenizer = make_tokenizer()
    model = make_model(tokenizer)
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", model, tokenizer), model, tokenizer


def test_conversion_keeps_weights_tokenizer_and_chat_template(source: tuple[Path, Any, Any], tmp_path: Path) -> None:
    file, model, tokenizer = source
    folder = tmp_path / "converted"
    folder.mkdir()
    convert_gguf(file, folder, _stages(tmp_path / "job"))

    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name].bfloat16()), name
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    again = AutoTokenizer.from_pretrained(folder)
    text = again.apply_chat_template(QUESTION, tokenize=False, add_generation_prompt=True)
    assert text == tokenizer.apply_chat_template(QUESTION, tokenize=False, add_generation_prompt=True)
    assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert again.eos_token == again.pad_token == "<|im_end|>"
    assert again.model_max_length == 256
    assert loaded.generation_config.eos_token_id == tokenizer.eos_token_id


def test_converted_folder_has_no_trace_of_quantisation(source: tuple[Path, Any, Any], tmp_path: Path) -> None:
    folder = tmp_path / "converted"
    folder.mkdir()
    convert_gguf(source[0], folder, _stages(tmp_path / "job"))
    config = json.loads((folder / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["dtype"] == "bfloat16"
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert json.loads((folder / "meta.json").read_text())["source"]["file"] == "tiny.gguf"


def test_quantised_blocks_are_unpacked_to_within_their_rounding(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    model = make_model(tokenizer)
    unpacked = dense_model(write_gguf(tmp_path / "q8.gguf", model, tokenizer, weights="q8_0")).state_dict()
    for name, tensor in model.state_dict().items():
        largest_error = (unpacked[name].float() - tensor).abs().max()
        # half of a block's step of max/127, and half a bf16 unit in the last place (2^-9 of the value)
        assert largest_error <= tensor.abs().max() * (0.5 / 127 + 2**-8), name


def test_verification_names_what_differs(source: tuple[Path, Any, Any], tmp_path: Path) -> None:
    folder = tmp_path / "converted"
    folder.mkdir()
    convert_gguf(source[0], folder, _stages(tmp_path / "job"))
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    verify_converted(folder, model, tokenizer)
    with torch.no_grad():
        model.model.norm.weight[0] += 1
    tokenizer.chat_template = "{{ messages[0].content }}"
    with pytest.raises(ModelLoadError, match=r"model\.norm\.weight, chat template"):
        verify_converted(folder, model, tokenizer)


def test_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.gguf").write_text("GGML, not what was asked for")
    with pytest.raises(ModelLoadError, match="is not a GGUF file"):
        hash_gguf(tmp_path / "notes.gguf", _stages(tmp_path))
    with pytest.raises(ModelLoadError, match="There is no file"):
        hash_gguf(tmp_path / "absent.gguf", _stages(tmp_path / "second"))


def test_second_request_takes_the_cached_model(source: tuple[Path, Any, Any], tmp_path: Path) -> None:
    first = find_or_convert(source[0], tmp_path / "cache", _stages(tmp_path / "one"))
    written = (first / "model.safetensors").stat()
    second = find_or_convert(source[0], tmp_path / "cache", _stages(tmp_path / "two"))
    assert first == second
    assert (second / "model.safetensors").stat() == written
    assert [file.name for file in first.iterdir() if file.stat().st_mode & 0o222] == []


def test_requests_at_once_convert_once(
    source: tuple[Path, Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversions: list[Path] = []

    def write(_file: Path, _digest: str, folder: Path, _stages: Stages) -> None:
        conversions.append(folder)
        (folder / "model.safetensors").write_bytes(b"0" * 1000)

    monkeypatch.setattr(gguf_module, "write_converted", write)
    found: list[Path] = []
    threads = [
        threading.Thread(
            target=lambda i=i: found.append(find_or_convert(source[0], tmp_path / "cache", _stages(tmp_path / str(i))))
        )
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(conversions) == 1
    assert len(set(found)) == 1
    assert len(found) == 4
    assert (found[0] / "model.safetensors").stat().st_size == 1000


def test_cancel_between_stages_leaves_nothing(
    source: tuple[Path, Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = make_context(tmp_path / "job", "import", {})

    def cancelled_meanwhile(file: Path) -> Any:
        context.stop_request = StopRequest.CANCEL
        return dense_model(file)

    monkeypatch.setattr(gguf_module, "dense_model", cancelled_meanwhile)
    with pytest.raises(JobCancelled):
        find_or_convert(source[0], tmp_path / "cache", Stages(context, STAGES))
    assert [path.name for path in (tmp_path / "cache" / "models").iterdir() if path.is_dir()] == []
    assert [record.data["phase"] for record in read_records(context) if record.kind == "phase"] == ["load", "convert"]
