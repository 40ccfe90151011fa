"""An adapter from elsewhere is taken in whole, or refused with the reason and nothing left behind."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.core.models.safetensors import write_model
from tests.worker.contexts import make_context, read_records
from worker.adapters.importer import run_adapter_import
from worker.adapters.unpack import AdapterError
from worker.artifacts.folders import folder_fault

CONFIG = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "owner/Tiny", "r": 2}
Q_PROJ = "base_model.model.model.layers.0.self_attn.q_proj"
Import = Callable[..., tuple[Any, Path]]


def safetensors(shapes: dict[str, list[int]]) -> bytes:
    """Zeros of these shapes."""
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 4 * shape[0] * shape[1]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(at)


def lora(module: str = "model.layers.0.self_attn.q_proj", into: int = 8, out: int = 8) -> bytes:
    prefix = f"base_model.model.{module}"
    return safetensors({f"{prefix}.lora_A.weight": [2, into], f"{prefix}.lora_B.weight": [out, 2]})


def files(config: dict[str, Any] | None = None, weights: bytes | None = None) -> dict[str, bytes]:
    return {
        "adapter_config.json": json.dumps({**CONFIG, **(config or {})}).encode(),
        "adapter_model.safetensors": lora() if weights is None else weights,
    }


def pack(contents: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return out.getvalue()


def named_base(tmp_path: Path) -> dict[str, Any]:
    """A base model of two modules."""
    shapes = {f"model.layers.0.self_attn.{name}.weight": [8, 8] for name in ("q_proj", "k_proj")}
    base = write_model(tmp_path / "tiny", shapes=shapes)
    return {"name": "tiny", "path": str(base), "hub_id": "owner/Tiny"}


@pytest.fixture
def take_in(tmp_path: Path) -> Import:
    """Run the import of a zip's bytes; its result, and the job's folder."""
    named = named_base(tmp_path)

    def take_in(content: bytes) -> tuple[Any, Path]:
        job = tmp_path / "job"
        source = job / "uploaded" / "incoming"
        source.parent.mkdir(parents=True)
        source.write_bytes(content)
        payload = {"source": str(source), "base_model": named, "spec": {"method": "lora"}}
        context = make_context(job, "adapter", payload)
        return (run_adapter_import(context), read_records(context)), job

    return take_in


def left(job: Path) -> list[str]:
    beside = {"spool.jsonl", "waits.json"}  # of the test's own context
    return sorted(path.name for path in job.iterdir() if path.name not in beside)


@pytest.mark.parametrize("root", ["", "my adapter/"])
def test_an_adapter_is_taken_in_with_its_base_s_tokenizer(take_in: Import, root: str) -> None:
    more = {"training_args.bin": b"pickle", "checkpoint-1/adapter_model.bin": b"x", "notes.exe": b"MZ"}
    contents = {f"{root}{name}": content for name, content in {**files(), **more}.items()}
    (summary, records), job = take_in(pack(contents))
    assert (summary["tensors"], summary["r"], summary["trained_on"]) == (2, 2, "owner/Tiny")
    assert left(job) == ["adapter"]
    assert folder_fault(job / "adapter") is None
    names = left(job / "adapter")
    assert {"adapter_config.json", "adapter_model.safetensors", "meta.json", "tokenizer.json"} <= set(names)
    assert not {"training_args.bin", "notes.exe"} & set(names)
    assert json.loads((job / "adapter/adapter_config.json").read_text())["base_model_name_or_path"] == "tiny"
    assert [record.data["kind"] for record in records if record.kind == "artifact"] == ["adapter"]


@pytest.mark.parametrize("named", ["tiny", "owner/Tiny", "/home/somebody/models/Tiny", "another-owner/TINY"])
def test_the_base_is_known_by_its_name_wherever_it_lay(take_in: Import, named: str) -> None:
    (summary, _), _ = take_in(pack(files({"base_model_name_or_path": named})))
    assert summary["trained_on"] == named.removeprefix("/home/somebody/models/")


@pytest.mark.parametrize("path", ["/home/somebody/models/Tiny", r"C:\models\Tiny", "./models/Tiny/"])
def test_no_file_names_a_folder_of_the_machine_that_it_comes_from(take_in: Import, path: str) -> None:
    card = f"---\nbase_model: {path}\ntags:\n- base_model:adapter:{path}\n---\n\nOf {path}, by me.\n"
    tokenizer = {"name_or_path": path, "tokenizer_file": f"{path}/tokenizer.json", "eos_token": "</s>"}
    more = {"README.md": card.encode(), "tokenizer_config.json": json.dumps(tokenizer).encode()}
    (summary, records), job = take_in(pack({**files({"base_model_name_or_path": path}), **more}))
    assert summary["trained_on"] == "Tiny"
    for file in (job / "adapter").iterdir():
        assert b"models" not in file.read_bytes(), file.name
    assert "models" not in str([record.data for record in records])
    assert "Of tiny, by me." in (job / "adapter/README.md").read_text()
    assert json.loads((job / "adapter/tokenizer_config.json").read_text()) == {"eos_token": "</s>"}


def odd(name: str, mode: int = 0, content: bytes = b"x") -> bytes:
    """A good adapter with one more entry."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for each, inside in files().items():
            archive.writestr(each, inside)
        info = zipfile.ZipInfo(name)
        info.filename = name  # as it is: ZipInfo would tidy it
        info.external_attr = mode << 16
        archive.writestr(info, content)
    return out.getvalue()


def bomb() -> bytes:
    contents = {**files(), "adapter_model.safetensors": bytes(200 << 20)}
    return pack(contents, zipfile.ZIP_DEFLATED)


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "slip": (lambda: odd("../../evil"), "outside its folder"),
    "slip-inside": (lambda: odd("a/../../evil"), "outside its folder"),
    "absolute": (lambda: odd("/tmp/evil"), "outside its folder"),
    "backslash": (lambda: odd("..\\evil"), "outside its folder"),
    "link": (lambda: odd("tokenizer.json", stat.S_IFLNK | 0o777, b"/etc/passwd"), "a link or a device"),
    "device": (lambda: odd("tokenizer.json", stat.S_IFCHR | 0o666), "a link or a device"),
    "bomb": (bomb, "would grow to 209,715,200 bytes"),
    "no zip": (lambda: b"PK\x03\x04 not a zip", "not a zip that can be read"),
    "cut": (lambda: pack(files())[:-30], "not a zip that can be read"),
    "flipped": (lambda: pack(files()).replace(lora(), lora()[:-1] + b"\1"), "not a zip that can be read"),
    "empty zip": (lambda: pack({}), "holds no adapter_config.json"),
    "two": (lambda: pack({f"{n}/{k}": v for n in "ab" for k, v in files().items()}), "2 files named"),
    "pickle": (
        lambda: pack({**{k: v for k, v in files().items() if "json" in k}, "adapter_model.bin": pickle.dumps({})}),
        "pickled",
    ),
    "no weights": (lambda: pack({"adapter_config.json": files()["adapter_config.json"]}), "no adapter_model"),
    "other base": (lambda: pack(files({"base_model_name_or_path": "meta/Other-8B"})), "trained on 'meta/Other-8B'"),
    "other kind": (lambda: pack(files({"peft_type": "IA3"})), "kind IA3"),
    "own code": (lambda: pack(files({"auto_mapping": {"base_model_class": "X"}})), "auto_mapping"),
    "broken config": (lambda: pack({**files(), "adapter_config.json": b"["}), "not that of a peft adapter"),
    "deep config": (lambda: pack({**files(), "adapter_config.json": b"[" * 100_000}), "not that of a peft adapter"),
    "no safetensors": (lambda: pack(files(weights=b"\x80\x04pickle")), "not a readable safetensors file"),
    "other module": (lambda: pack(files(weights=lora("model.layers.7.mlp.up_proj"))), r"no model\.layers\.7\.mlp"),
    "other width": (lambda: pack(files(weights=lora(into=16))), "lora_A has 16 where 8 fit"),
    "other rank": (lambda: pack(files({"r": 9})), "q_proj has rank 2, and adapter_config.json says 9"),
    "other rank of one": (lambda: pack(files({"rank_pattern": {"q_proj": 4}})), "has rank 2, and .* says 4"),
    "half": (lambda: pack(files(weights=safetensors({f"{Q_PROJ}.lora_A.weight": [2, 8]}))), "lora_A and no lora_B"),
    "other targets": (lambda: pack(files({"target_modules": ["k_proj"]})), "q_proj, which target_mod"),
    "nothing for a target": (lambda: pack(files({"target_modules": ["q_proj", "k_proj"]})), "k_proj, for which it has"),
    "no pattern": (lambda: pack(files({"rank_pattern": {"(": 4}})), "not that of a peft adapter"),
    "no name of a base": (lambda: pack(files({"base_model_name_or_path": None})), "does not name the base model"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_adapter_of_this_base_is_refused_and_nothing_is_left(
    take_in: Import, tmp_path: Path, name: str
) -> None:
    make, reason = REFUSED[name]
    before = left(tmp_path)
    with pytest.raises(AdapterError, match=reason):
        take_in(make())
    assert left(tmp_path / "job") == []
    assert left(tmp_path) == sorted([*before, "job"])
    assert not Path("/tmp/evil").exists()


def test_a_folder_is_copied_and_left_as_it_was(tmp_path: Path) -> None:
    source = tmp_path / "shared" / "mine"
    source.mkdir(parents=True)
    for name, content in files().items():
        (source / name).write_bytes(content)
    (source / "notes.txt").write_text("not wanted")
    payload = {"base_model": named_base(tmp_path), "source": str(source), "uploaded": False, "spec": {}}
    summary = run_adapter_import(make_context(tmp_path / "job", "adapter", payload))
    assert folder_fault(tmp_path / "job" / "adapter") is None
    assert not (tmp_path / "job" / "adapter" / "notes.txt").exists()
    assert {path.name for path in source.iterdir()} == {*files(), "notes.txt"}
    assert summary["fields"] == {"r": 2}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda place: (place / "adapter_config.json").unlink(), "holds no adapter_config.json"),
        (lambda place: _link(place / "adapter_model.safetensors"), "is a link, which is not followed"),
        (lambda place: _link(place / "adapter_config.json"), "is a link, which is not followed"),
        (lambda place: (place / "adapter_model.safetensors").rename(place / "adapter_model.bin"), "pickled"),
        (lambda place: shutil.rmtree(place), "is gone"),
    ],
    ids=["no config", "linked weights", "linked config", "pickle", "gone"],
)
def test_a_folder_that_is_no_adapter_is_refused(tmp_path: Path, spoil: Callable[[Path], object], said: str) -> None:
    source = tmp_path / "mine"
    source.mkdir()
    for name, content in files().items():
        (source / name).write_bytes(content)
    spoil(source)
    payload = {"base_model": named_base(tmp_path), "source": str(source), "uploaded": False, "spec": {}}
    with pytest.raises(AdapterError, match=said):
        run_adapter_import(make_context(tmp_path / "job", "adapter", payload))
    assert not (tmp_path / "job" / "adapter").exists()


def _link(file: Path) -> None:
    moved = file.parent.parent / f"elsewhere-{file.name}"
    file.rename(moved)
    file.symlink_to(moved)
