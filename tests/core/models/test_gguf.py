"""A GGUF file is read from its header alone, and a damaged one is refused quickly."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from app.core.errors import InvalidInput
from app.core.models import gguf_header
from app.core.models.gguf_facts import inspect_gguf
from app.core.models.gguf_header import read_header
from tests.core.models.gguf_file import LLAMA, PARAMETERS, SHAPES, text, write_gguf
from tests.core.models.gguf_file import gguf_header as header_bytes


def _refused(path: Path) -> str:
    with pytest.raises(InvalidInput) as caught:
        read_header(path)
    assert [fault.field for fault in caught.value.faults] == ["path"]
    assert caught.value.faults[0].message.startswith(f"{path.name} is not a readable GGUF file: ")
    return caught.value.message


@pytest.mark.parametrize("version", [2, 3])
def test_header_holds_metadata_without_arrays_and_shapes(tmp_path: Path, version: int) -> None:
    header = read_header(write_gguf(tmp_path / "m.gguf", version=version))
    assert header.metadata == {key: value for key, value in LLAMA.items() if not isinstance(value, list)}
    assert header.shapes == {name: tuple(shape) for name, shape in SHAPES.items()}


def test_facts_of_a_llama(tmp_path: Path) -> None:
    assert inspect_gguf(write_gguf(tmp_path / "m.gguf")).to_json() == {
        "architecture": "LlamaForCausalLM",
        "parameters": PARAMETERS,
        "max_length": 2048,
        "linear_modules": ["down_proj", "q_proj", "v_proj"],
        "has_chat_template": True,
    }


@pytest.mark.parametrize(
    ("metadata", "shapes"),
    [
        ({"general.architecture": "martian"}, {"blk.0.attn_q.weight": [8, 8]}),
        ({}, {"blk.0.attn_q.weight": [8, 8]}),
        ({"general.architecture": "llama"}, {"blk.0.attn_q.weight": [8, 8], "blk.0.ffn_up_exps.weight": [2, 8, 8]}),
    ],
)
def test_modules_are_unknown_where_a_name_is(
    tmp_path: Path, metadata: dict[str, str], shapes: dict[str, list[int]]
) -> None:
    facts = inspect_gguf(write_gguf(tmp_path / "m.gguf", shapes, metadata))
    assert (facts.linear_modules, facts.max_length, facts.has_chat_template) == ([], None, False)


def test_a_header_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = header_bytes()
    path = tmp_path / "m.gguf"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        _refused(path)
    path.write_bytes(whole)
    assert "cut short" in _refused(path), "no weight is there"


def _key(kind: int, value: bytes) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("key") + struct.pack("<I", kind) + value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cut short at 0 bytes"),
        (b"GGML" + bytes(99), "does not begin with GGUF"),
        (b"GGUF" + struct.pack("<I", 1) + bytes(99), "it has version 1"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(99), "it has version 50331648"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**40, 0), "it claims 1,099,511,627,776 tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**64 - 1), "it claims 18,446,744,073,709,551,615 keys"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**63), "cut short"),
        (_key(8, struct.pack("<Q", 2**62)), "cut short"),
        (_key(8, struct.pack("<Q", 1) + b"\xff"), "can't decode"),
        (_key(13, bytes(99)), "unknown type 13"),
        (_key(9, struct.pack("<IQ", 4, 2**60)), "it claims 1,152,921,504,606,846,976 array entries"),
        (_key(9, struct.pack("<IQ", 4, 2**20)), "cut short"),
        (_key(9, struct.pack("<IQ", 8, 2**20)), "cut short"),
        (_key(9, struct.pack("<IQ", 9, 1) + bytes(99)), "unknown type 9"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + text("t") + struct.pack("<I", 2**31), "2147483648 dimensions"),
    ],
)
def test_a_damaged_file_is_refused_with_what_is_wrong(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    assert message in _refused(path)


def test_a_header_beyond_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_gguf(tmp_path / "m.gguf")
    monkeypatch.setattr(gguf_header, "_MAX_HEADER_BYTES", 100)
    assert "its header is longer than 100 bytes" in _refused(path)


def test_a_file_cut_within_its_weights_is_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf")
    end = len(header_bytes()) + 32 * (len(SHAPES) - 1)  # where its last tensor begins
    path.write_bytes(path.read_bytes()[:end])
    read_header(path)
    path.write_bytes(path.read_bytes()[: end - 1])
    assert "before its last tensor" in _refused(path)


def test_a_folder_or_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "Is a directory" in _refused(tmp_path)
    assert "No such file" in _refused(tmp_path / "gone.gguf")
