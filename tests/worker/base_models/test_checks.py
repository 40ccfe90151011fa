"""Which folders are models that can be trained, told from their JSON files and tensor headers."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import ModelLoadError
from worker.base_models.checks import check_config, check_weights

_BYTES = {"F32": 4, "BF16": 2}


def _write_safetensors(path: Path, tensors: dict[str, tuple[str, list[int]]]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        start, elements = end, 1
        for size in shape:
            elements *= size
        end = start + elements * _BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    _write_safetensors(tmp_path / "model.safetensors", {"a": ("BF16", [3, 4]), "b": ("F32", [5])})
    return tmp_path


def test_sound_folder_passes_and_most_elements_give_the_dtype(folder: Path) -> None:
    assert check_config(folder) == {"model_type": "llama"}
    weights = check_weights(folder)
    assert weights.dtype == "BF16"
    assert weights.files == (folder / "model.safetensors",)
    assert weights.bytes == (folder / "model.safetensors").stat().st_size


def test_shards_of_the_index_are_added_up(folder: Path) -> None:
    _write_safetensors(folder / "model-2.safetensors", {"c": ("F32", [100])})
    index = {"weight_map": {"a": "model.safetensors", "c": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert [file.name for file in check_weights(folder).files] == ["model-2.safetensors", "model.safetensors"]
    assert check_weights(folder).dtype == "F32"
    (folder / "model-2.safetensors").unlink()
    with pytest.raises(ModelLoadError, match=r"has no model-2\.safetensors"):
        check_weights(folder)


def test_index_cannot_lead_out_of_the_folder(folder: Path) -> None:
    index = {"weight_map": {"a": "../elsewhere/model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelLoadError, match="outside its folder"):
        check_weights(folder)


def test_missing_or_broken_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="is not a folder"):
        check_config(tmp_path / "absent")
    with pytest.raises(ModelLoadError, match=r"has no config\.json"):
        check_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelLoadError, match=r"config\.json is not valid JSON"):
        check_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ModelLoadError, match="is not a JSON object"):
        check_config(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_own_code_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_text(json.dumps({"auto_map": {"AutoConfig": "custom.Config"}}))
    with pytest.raises(ModelLoadError, match="which nobody has allowed to be run"):
        check_config(folder)


def test_quantised_weights_are_refused(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "gptq"}}))
    with pytest.raises(ModelLoadError, match=r"already quantised \(gptq\)"):
        check_config(folder)


def test_pickled_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match=r"pickled weights \(pytorch_model\.bin\)"):
        check_weights(folder)


def test_missing_weights_are_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelLoadError, match=r"has no model\.safetensors"):
        check_weights(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-1], "should hold 44 bytes of tensors and holds 43"),
        (lambda data: data + b"0", "should hold 44 bytes of tensors and holds 45"),
        (lambda data: data[:5], "is not a safetensors file"),
        (lambda data: struct.pack("<Q", 1 << 60) + data[8:], "is not a safetensors file"),
        (lambda data: data[:8] + b"?" + data[9:], "has a broken header"),
    ],
    ids=["cut short", "too long", "no header", "absurd header length", "header is no JSON"],
)
def test_damaged_weights_are_named(folder: Path, damage: Any, message: str) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ModelLoadError, match=message):
        check_weights(folder)


def test_weights_without_a_tensor_are_refused(folder: Path) -> None:
    _write_safetensors(folder / "model.safetensors", {})
    with pytest.raises(ModelLoadError, match="hold no tensor"):
        check_weights(folder)
