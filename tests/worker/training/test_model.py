"""Device, type, threads, loading, target modules."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from app.core.errors import InvalidInput, ModelLoadError
from tests.worker.tiny import make_model, make_tokenizer, train_payload
from worker.training import model as subject
from worker.training.adapters import add_lora
from worker.training.model import (
    Hardware,
    choose_hardware,
    count_parameters,
    list_linear_modules,
    load_base_model,
    set_threads,
)
from worker.training.tokenizer import load_tokenizer
from worker.training.train import parse_spec

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]

CPU = Hardware(torch.device("cpu"), torch.float32)


@pytest.mark.parametrize(
    ("cuda", "supported", "bf16", "device", "dtype"),
    [
        (True, True, "auto", "cuda:0", torch.bfloat16),
        (True, False, "auto", "cuda:0", torch.float32),
        (True, True, False, "cuda:0", torch.float32),
        (False, False, "auto", "cpu", torch.float32),
        (False, False, True, "cpu", torch.bfloat16),
    ],
)
def test_device_and_dtype(
    cuda: bool, supported: bool, bf16: bool | str, device: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: supported)
    assert choose_hardware(bf16) == Hardware(torch.device(device), dtype)


def test_bf16_demanded_of_a_gpu_without_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    with pytest.raises(InvalidInput, match="Tesla T4 does not compute in bfloat16") as caught:
        choose_hardware(True)
    assert caught.value.faults[0].field == "bf16"


@pytest.mark.parametrize(("limit", "threads"), [("100000 100000", 1), ("50000 100000", 1), ("max 100000", None)])
def test_threads_keep_to_a_containers_limit(
    limit: str, threads: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text(limit + "\n")
    monkeypatch.setattr(subject, "_CGROUP_CPU", tmp_path / "cpu.max")
    torch.set_num_threads(2)
    assert set_threads() == threads if threads else set_threads() <= 2


def test_linear_modules_leave_the_head_out(tiny_model: Path) -> None:
    model = load_base_model(tiny_model, CPU)
    assert list_linear_modules(model) == [
        *("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"),
    ]


def test_lora_parameters_follow_the_formula(tiny_model: Path, tmp_path: Path) -> None:
    """r · (in + out) per target; Source: https://arxiv.org/abs/2106.09685."""
    spec = parse_spec(train_payload(tiny_model, tmp_path, r=4, target_modules=["q_proj", "v_proj"])["spec"])
    base = load_base_model(tiny_model, CPU)
    frozen = count_parameters(base)[1]
    trainable, everything = count_parameters(add_lora(base, spec, "tiny"))
    assert trainable == 2 * 4 * ((32 + 32) + (32 + 16))  # 2 layers; v has 2 of 4 heads
    assert everything == frozen + trainable


def test_untrained_adapter_changes_nothing(tiny_model: Path, tmp_path: Path) -> None:
    spec = parse_spec(train_payload(tiny_model, tmp_path)["spec"])
    ids = torch.arange(3, 30).unsqueeze(0)
    base = load_base_model(tiny_model, CPU).eval()
    before = base(input_ids=ids).logits
    assert torch.equal(add_lora(base, spec, "tiny").eval()(input_ids=ids).logits, before)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    model = make_model(tokenizer)
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match="could not be loaded") as caught:
        load_base_model(tmp_path, CPU)
    assert "safetensors" in str(caught.value.advice)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="nowhere"):
        load_tokenizer(tmp_path / "nowhere")
    with pytest.raises(ModelLoadError, match="nowhere"):
        load_base_model(tmp_path / "nowhere", CPU)


def test_code_beside_the_weights_is_never_run(tiny_model: Path, tmp_path: Path) -> None:
    """CVE-2026-5241: a configuration's `auto_map` names a module of the same folder."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "evil"))
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')")
    with pytest.raises(ModelLoadError):
        load_base_model(folder, CPU)
    assert not (tmp_path / "marker").exists()
