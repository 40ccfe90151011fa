"""Which code comes with a model, and what of it has changed: read from the folder, nothing of it run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from app.core.models.code_view import readable
from app.core.models.own_code import REVISION_FILE, CodeFault, CodeFile, find_change, needs_code, read_code
from tests.core.models.safetensors import LLAMA, write_model

AUTO_MAP = {"auto_map": {"AutoModelForCausalLM": "modeling.Own"}}


def _model(folder: Path) -> Path:
    write_model(folder, {**LLAMA, **AUTO_MAP})
    (folder / "modeling.py").write_text("class Own: ...\n")
    (folder / "sub").mkdir()
    (folder / "sub" / "generate.py").write_text("")
    return folder


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "generation_config.json"])
def test_code_is_needed_where_a_configuration_names_classes_however_deep(tmp_path: Path, name: str) -> None:
    folder = write_model(tmp_path / "model")
    assert not needs_code(folder)
    (folder / name).write_text(json.dumps({"parts": [{"text_config": AUTO_MAP}]}))
    assert needs_code(folder)


def test_every_python_file_counts_and_the_revision_too(tmp_path: Path) -> None:
    folder = _model(tmp_path / "model")
    code = read_code(folder)
    assert [file.path for file in code.files] == ["modeling.py", "sub/generate.py"]
    assert code.hashes["modeling.py"] == hashlib.sha256(b"class Own: ...\n").hexdigest()
    seen = {code.sha256}
    (folder / REVISION_FILE).write_text("abc\n")
    assert read_code(folder).revision == "abc"
    seen.add(read_code(folder).sha256)
    (folder / "modeling.py").rename(folder / "other.py")
    (folder / "config.json").write_text(json.dumps({"auto_map": {"AutoConfig": ["other.Own", None]}}))
    seen.add(read_code(folder).sha256)
    (folder / "other.py").write_text("class Own: ...\n#")
    seen.add(read_code(folder).sha256)
    assert len(seen) == 4


@pytest.mark.parametrize(
    "reference",
    ["acme/other--modeling.Own", "../modeling.Own", "/etc/modeling.Own", "gone.Own", "modeling", "modeling.Own\n", 7],
)
def test_code_that_is_not_in_the_folder_cannot_be_allowed(tmp_path: Path, reference: str) -> None:
    folder = _model(tmp_path / "model")
    (folder / "config.json").write_text(json.dumps({"auto_map": {"AutoConfig": reference}}))
    with pytest.raises(CodeFault, match="not in its folder"):
        read_code(folder)


def test_more_code_than_anybody_reads_cannot_be_allowed(tmp_path: Path) -> None:
    folder = _model(tmp_path / "model")
    (folder / "long.py").write_bytes(b"#" * (4 * 1024**2 + 1))
    with pytest.raises(CodeFault, match="more than"):
        read_code(folder)


@pytest.mark.parametrize("content", ["{", "[" * 100_000, '{"a":' * 100_000])
def test_a_configuration_that_cannot_be_read_is_named(tmp_path: Path, content: str) -> None:
    folder = write_model(tmp_path / "model")
    (folder / "generation_config.json").write_text(content)
    with pytest.raises(CodeFault, match=r"generation_config\.json"):
        needs_code(folder)


def test_a_change_names_its_file() -> None:
    allowed = {"a.py": "1", "b.py": "2"}
    assert find_change(allowed, allowed) is None
    assert find_change({**allowed, "b.py": "3"}, allowed) == "b.py has changed"
    assert find_change({**allowed, "c.py": "3"}, allowed) == "c.py is new"
    assert find_change({"b.py": "2"}, allowed) == "a.py is gone"


def test_nothing_in_the_text_is_hidden() -> None:
    """CVE-2021-42574: characters that turn the direction of text make code read otherwise than it runs."""
    text = "if admin:\t# \u202e\u2066 no\u200b\x1b[2K\r\n\tx = 'é'\n"
    assert readable(CodeFile("a.py", text.encode() + b"\xff")) == (
        "if admin:\t# \\u202e\\u2066 no\\u200b\\u001b[2K\n\tx = 'é'\n\\xff"
    )
