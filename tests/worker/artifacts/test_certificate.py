"""Certificates of merges of each kind, of tiny models with random adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from app.core.errors import MergeError
from tests.worker.artifacts.adapters import Bases, make_bases, stream_merge, tune
from tests.worker.tiny import make_tokenizer
from worker.artifacts.certificate import prove
from worker.artifacts.deltas import LowRank
from worker.artifacts.saving import mend_generation_config, save_tokenizer
from worker.artifacts.skeleton import build_model
from worker.inference.prompts import stop_token_ids

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:.*tie_word_embeddings:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*fan_in_fan_out:UserWarning"),
]

MERGES: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("tied", {}),
    "dora": ("tied", {"use_dora": True}),
    "gpt2": ("gpt2", {}),
    "gpt2 by dora, with biases": ("gpt2", {"use_dora": True, "bias": "all"}),
    "a head of its own, trained whole": ("untied", {"modules_to_save": ["lm_head", "norm"]}),
    "embeddings apart from the head": ("tied", {"target_modules": ["embed_tokens", "q_proj"]}),
    "a grown vocabulary": ("untied", {"words": 400, "target_modules": ["q_proj"]}),
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    return make_bases(tmp_path_factory.mktemp("bases"))


def certify(kind: str, bases: Bases, folder: Path, dtype: torch.dtype) -> dict[str, Any]:
    which, config = MERGES[kind]
    base: Path = getattr(bases, which)
    adapter = tune(base, folder, **{"target_modules": "all-linear", **config})
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(adapter)
    merged = stream_merge(base, adapter, folder, dtype)
    model = build_model(base)
    mend_generation_config(model.generation_config, stop_token_ids(model, tokenizer))
    model.generation_config.save_pretrained(merged)
    save_tokenizer(tokenizer, merged)
    return prove(
        {
            "folder": str(merged), "base": str(base), "adapter": str(adapter), "held_out": None, "quantization": None,
            "dtype": str(dtype).removeprefix("torch."), "trained_dtype": "float32", "onto_files": False,
        }
    )  # fmt: skip


@pytest.mark.parametrize("kind", MERGES)
def test_it_passes_and_tells_what_it_found(kind: str, bases: Bases, tmp_path: Path) -> None:
    certificate = certify(kind, bases, tmp_path, torch.float32)
    assert certificate["passed"]
    assert certificate["relative_difference"] < 1e-5 < 1e-3 < certificate["adapter_effect"]
    assert certificate["values_differing"] <= 1e-3 * certificate["values"]
    assert (certificate["greedy_tokens_same"], certificate["kl_divergence"] < 1e-8) == (24, True)
    assert certificate["vocabulary_size"] == (400 if kind == "a grown vocabulary" else 351)
    assert certificate["tied_embeddings"] == (kind in ("lora", "dora", "gpt2", "gpt2 by dora, with biases"))


@pytest.mark.parametrize("kind", ["lora", "dora", "gpt2"])
def test_a_lost_adapter_is_named_by_its_weight(
    kind: str, bases: Bases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LowRank, "apply", lambda *_: None)
    with pytest.raises(MergeError, match=r"(q_proj|c_attn)\.weight on disk is not the sum of base and adapter"):
        certify(kind, bases, tmp_path, torch.bfloat16)
