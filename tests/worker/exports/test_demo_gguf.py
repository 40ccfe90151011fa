"""The demo model as GGUF, f16 and q8_0: read back by `gguf` and transformers, it answers as the model itself does."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from transformers import AutoModelForCausalLM, AutoTokenizer

from app.core.demo import find_demo_gguf
from tests.worker.tiny import make_context
from worker.artifacts.folders import publish_artifact
from worker.base_models.gguf import STAGES, find_or_convert
from worker.base_models.stages import Stages
from worker.exports.run import run_export

pytestmark = [pytest.mark.model, pytest.mark.demo]

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model as a merge leaves one, from the user's own cache where it is converted there."""
    file = find_demo_gguf()
    assert file is not None, "the demo model's package is not installed"
    place = tmp_path_factory.mktemp("demo")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "loradeck"
    stages = Stages(make_context(place / "job", "import", {}), STAGES)
    converted = find_or_convert(file, cache if cache.is_dir() else place / "cache", stages)
    with publish_artifact(place / "merged", {"kind": "merged"}, 0) as folder:
        for each in converted.iterdir():
            if each.name != "meta.json":
                shutil.copyfile(each, folder / each.name)
    return place / "merged"


def _answer(model: Any, tokenizer: Any) -> str:
    inputs = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.inference_mode():
        tokens = model.generate(**inputs, max_new_tokens=24, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    return str(tokenizer.decode(tokens, skip_special_tokens=True))


@pytest.mark.parametrize("quantization", ["f16", "q8_0"])
def test_it_answers_as_the_model_that_it_was_made_of(demo: Path, tmp_path: Path, quantization: str) -> None:
    payload = {
        "quantization": quantization, "name": "Demo", "file_stem": "demo", "model_path": str(demo), "source_job_id": 1,
    }  # fmt: skip
    summary = run_export(make_context(tmp_path / "job", "export", payload))
    assert summary["certificate"]["passed"]
    assert summary["certificate"]["greedy_tokens_equal"] or quantization == "q8_0"  # of long answers, not of this one
    file = tmp_path / "job" / "gguf" / f"demo-{quantization}.gguf"
    reader = GGUFReader(file)
    assert reader.get_field("tokenizer.ggml.pre").contents() == "smollm"
    kinds = {tensor.tensor_type.name for tensor in reader.tensors if len(tensor.shape) == 2}
    assert kinds == {quantization.upper()}
    tokenizer = AutoTokenizer.from_pretrained(demo)
    theirs = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    ours = AutoModelForCausalLM.from_pretrained(demo, dtype=torch.float32)
    assert _answer(theirs, tokenizer) == _answer(ours, tokenizer) == "The capital of France is Paris."
