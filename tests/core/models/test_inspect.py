"""A model folder is read from its config and its safetensors headers alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import InvalidInput
from app.core.models.inspect import inspect_folder, linear_modules, read_shapes
from tests.core.models.safetensors import LLAMA, PARAMETERS, SHAPES, tensors, write_header, write_model


def test_facts_of_a_folder(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    facts = inspect_folder(folder)
    assert facts.to_json() == {
        "path": str(folder),
        "architecture": "LlamaForCausalLM",
        "parameters": PARAMETERS,
        "bytes": (folder / "model.safetensors").stat().st_size,
        "max_length": 2048,
        "linear_modules": ["down_proj", "q_proj", "v_proj"],
        "has_chat_template": False,
        "needs_code": False,
    }


def test_shards_are_added_up(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", shapes={"model.layers.0.a.weight": [2, 3]})
    write_header(folder / "model-2.safetensors", tensors({"model.layers.1.b.weight": [5, 7]}))
    facts = inspect_folder(folder)
    assert facts.parameters == 6 + 35
    assert facts.bytes == sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert facts.linear_modules == ["a", "b"]


@pytest.mark.parametrize(
    ("tensor", "shape", "names"),
    [
        ("model.layers.11.mlp.up_proj.weight", [4, 4], ["up_proj"]),
        ("transformer.h.0.attn.c_attn.weight", [4, 12], ["c_attn"]),
        ("gpt_neox.layers.3.attention.query_key_value.weight", [12, 4], ["query_key_value"]),
        ("transformer.blocks.0.ffn.down.weight", [4, 4], ["down"]),
        ("lm_head.weight", [100, 4], []),
        ("model.embed_tokens.weight", [100, 4], []),
        ("model.layers.0.input_layernorm.weight", [4], []),
        ("model.layers.0.mlp.up_proj.bias", [4], []),
        ("model.layers.0.conv.weight", [4, 4, 3], []),
    ],
)
def test_lora_can_target_the_matrices_inside_the_blocks(tensor: str, shape: list[int], names: list[str]) -> None:
    assert linear_modules({tensor: shape}) == names


@pytest.mark.parametrize(
    ("config", "max_length"),
    [({}, None), ({"n_positions": 64}, 64), ({"max_position_embeddings": "many", "n_positions": 64}, 64)],
)
def test_max_length_is_a_number_or_unknown(tmp_path: Path, config: dict[str, Any], max_length: int | None) -> None:
    facts = inspect_folder(write_model(tmp_path / "model", config))
    assert facts.max_length == max_length
    assert facts.architecture == "unknown"


def test_a_chat_template_is_found_in_either_place(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": None}))
    assert not inspect_folder(folder).has_chat_template
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    assert inspect_folder(folder).has_chat_template
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert inspect_folder(folder).has_chat_template


def _refused(folder: Path) -> str:
    with pytest.raises(InvalidInput) as caught:
        inspect_folder(folder)
    assert [fault.field for fault in caught.value.faults] == ["path"]
    return caught.value.message


def test_a_folder_without_a_config_is_no_model(tmp_path: Path) -> None:
    assert "is not a model folder: it has no config.json" in _refused(tmp_path)
    (tmp_path / "file").touch()
    assert "is not a model folder" in _refused(tmp_path / "file")


def test_a_model_that_brings_code_says_so(tmp_path: Path) -> None:
    config = {**LLAMA, "auto_map": {"AutoModelForCausalLM": "modeling.Evil"}}
    assert inspect_folder(write_model(tmp_path / "model", config)).needs_code


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.gguf"])
def test_other_weight_formats_are_refused(tmp_path: Path, name: str) -> None:
    folder = write_model(tmp_path / "model")
    (folder / "model.safetensors").rename(folder / name)
    assert "holds no .safetensors file" in _refused(folder)


@pytest.mark.parametrize("names", [["tokenizer.json"], ["tokenizer.model"], ["vocab.json", "merges.txt"]])
def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path, names: list[str]) -> None:
    folder = write_model(tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    for name in names:
        assert "has no tokenizer: none of tokenizer.json, tokenizer.model, vocab.json with merges.txt." in _refused(
            folder
        )
        (folder / name).touch()
    assert inspect_folder(folder).parameters == PARAMETERS


@pytest.mark.parametrize("config", [b"{", b"\xff", b"[]", b"5", b"[" * 10_000, b'{"architectures": 5}',
                                    b'{"architectures": "LlamaForCausalLM"}', b'{"architectures": [{}]}'])  # fmt: skip
def test_a_damaged_config_is_refused(tmp_path: Path, config: bytes) -> None:
    folder = write_model(tmp_path / "model")
    (folder / "config.json").write_bytes(config)
    assert "config.json" in _refused(folder)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{",
        b"\xff\xff",
        b"[" * 10_000,
        [],
        {"a": 5},
        {"a": {}},
        {"a": {"shape": None}},
        {"a": {"shape": [1]}},
        {"a": {"shape": ["x"], "data_offsets": [0, 0]}},
        {"a": {"shape": [1], "data_offsets": [0, "x"]}},
        b'{"a": {"shape": [1e999], "data_offsets": [0, 0]}}',
    ],
    ids=str,
)
def test_a_damaged_shard_is_refused(tmp_path: Path, header: Any) -> None:
    folder = write_model(tmp_path / "model")
    write_header(folder / "model.safetensors", header)
    assert "model.safetensors is not a readable safetensors file" in _refused(folder)


@pytest.mark.parametrize("length", [2**63, 100_000_001, 100])
def test_a_header_length_that_lies_is_refused_unread(tmp_path: Path, length: int) -> None:
    with pytest.raises(InvalidInput, match="not a readable safetensors file"):
        read_shapes(write_header(tmp_path / "x.safetensors", tensors({"a": [1]}), length))


def test_a_file_cut_within_its_weights_is_refused(tmp_path: Path) -> None:
    header = {"a": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]}}
    path = write_header(tmp_path / "x.safetensors", header)
    with path.open("ab") as file:
        file.write(bytes(7))
    with pytest.raises(InvalidInput, match=r"it is cut short at .* bytes"):
        read_shapes(path)
    with path.open("ab") as file:
        file.write(bytes(1))
    assert read_shapes(path) == {"a": [2, 2]}


def test_a_file_cut_before_its_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"\1\2")
    with pytest.raises(InvalidInput, match="not a readable safetensors file"):
        read_shapes(path)


def test_shapes_leave_the_metadata_out(tmp_path: Path) -> None:
    assert read_shapes(write_header(tmp_path / "x.safetensors", tensors(SHAPES))) == SHAPES
