"""What is not merged: each is refused with its reason, and leaves no half a model behind."""

from __future__ import annotations

import json
import math
import shutil
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from app.core.errors import MergeError
from app.core.jobs.inputs import describe_files
from tests.worker.artifacts.conftest import Trained, merge_job
from worker.artifacts import merge as subject
from worker.artifacts.adapter_tensors import NotStreamable
from worker.artifacts.disk import DiskFull
from worker.artifacts.folders import META
from worker.artifacts.merge import run_merge
from worker.base_models.publish import hash_file
from worker.context import JobContext
from worker.patience import TooLarge

pytestmark = pytest.mark.model
_Usage = namedtuple("_Usage", "total used free")


def require_nothing_left(context: JobContext) -> None:
    assert not [path for path in context.folder.iterdir() if path.is_dir()]


def test_a_base_that_has_changed_is_refused(trained: Trained, tmp_path: Path) -> None:
    base = Path(shutil.copytree(trained.model, tmp_path / "base"))
    then = describe_files(base)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.1}))
    moved = replace(trained, model=base)
    with pytest.raises(MergeError, match=r"is not the one that the adapter was trained on .*config\.json has"):
        run_merge(merge_job(moved, tmp_path / "changed", model_files=then))
    with pytest.raises(MergeError, match="The folder of base model tiny is gone"):
        run_merge(merge_job(replace(trained, model=tmp_path / "nowhere"), tmp_path / "gone"))


def test_adapter_that_was_altered_is_refused(trained: Trained, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(trained.adapter, tmp_path / "adapter"))
    weights = copy / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(MergeError, match=r"adapter_model\.safetensors is not as it was saved"):
        run_merge(merge_job(Trained(trained.model, copy), tmp_path))


def test_adapter_of_another_base_is_refused(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(MergeError, match="trained on tiny, not on other"):
        run_merge(merge_job(trained, tmp_path, name="other"))


def test_incomplete_adapter_is_refused(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(MergeError, match="not a complete adapter"):
        run_merge(merge_job(Trained(trained.model, tmp_path), tmp_path))


def test_weight_beyond_fp16_is_named(trained: Trained, tmp_path: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(trained.model)
    model.model.layers[0].mlp.up_proj.weight.data[0, 0] = 1e6
    model.save_pretrained(tmp_path / "large")
    with pytest.raises(MergeError, match=r"up_proj.* do not fit into float16"):
        run_merge(merge_job(Trained(tmp_path / "large", trained.adapter), tmp_path, "fp16"))


def test_a_disk_without_room_is_told_before_anything_is_written(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = merge_job(trained, tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: _Usage(10**9, 10**9 - 2**20, 2**20))
    monkeypatch.setattr(subject, "stream", lambda *_: pytest.fail("it was begun"))
    with pytest.raises(DiskFull, match=r"merged needs .* MiB of free disk space; .* has 1 MiB"):
        run_merge(context)
    require_nothing_left(context)


def test_what_goes_through_peft_is_refused_where_memory_never_holds_it(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise NotStreamable("it is a riddle")

    context = merge_job(trained, tmp_path)
    monkeypatch.setattr(subject, "make_plan", refuse)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=5 * 10**8, available=10**8))
    said = (
        r"^Merged through peft, since it is a riddle: that takes about 1\.0 GB of memory; this machine has 0\.5 GB\.$"
    )
    with pytest.raises(TooLarge, match=said):
        run_merge(context)
    require_nothing_left(context)


@pytest.mark.parametrize("how", ["streamed", "through peft"])
def test_an_adapter_that_is_no_numbers_is_named_as_such(
    how: str, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a training leaves it whose loss has become NaN; another type of the result would not help."""

    def refuse(*_: Any, **__: Any) -> None:
        raise NotStreamable("it is a riddle")

    adapter = Path(shutil.copytree(trained.adapter, tmp_path / "adapter"))
    _spoil(adapter, "layers.1.self_attn.v_proj.lora_B", lambda tensor: tensor[0].fill_(math.nan))
    context = merge_job(Trained(trained.model, adapter), tmp_path)
    if how == "through peft":
        monkeypatch.setattr(subject, "make_plan", refuse)
    with pytest.raises(MergeError, match=r"layers\.1\.self_attn\.v_proj\.weight is not finite") as caught:
        run_merge(context)
    assert caught.value.advice == "Merge an earlier checkpoint, if its losses were still finite."
    require_nothing_left(context)


def _spoil(adapter: Path, name: str, change: Callable[[Any], Any]) -> None:
    """Change a tensor, and have the adapter's own list of files agree with it."""
    weights = adapter / "adapter_model.safetensors"
    tensors = load_file(weights)
    (key,) = (each for each in tensors if name in each)
    change(tensors[key])
    save_file(tensors, weights, metadata={"format": "pt"})
    meta = json.loads((adapter / META).read_text())
    for file in meta["files"]:
        if file["path"] == weights.name:
            file |= {"sha256": hash_file(weights), "bytes": weights.stat().st_size}
    (adapter / META).write_text(json.dumps(meta))
