"""Code that comes with a model: never run unless it is allowed, and then wherever the model is loaded."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import ModelLoadError
from tests.worker.own_code import hashes, modules_in, save_own_code_model
from tests.worker.tiny import make_context, read_records, train_payload, write_rows
from worker import own_code
from worker.artifacts import merge as merging
from worker.artifacts.certificate import prove
from worker.artifacts.merge import run_merge
from worker.base_models.summary import summarise
from worker.child import run_assignment
from worker.context import JobContext
from worker.inference.generate import run_generate
from worker.own_code import allow_code, may_run_code
from worker.training.train import run_training

WORKER = Path(own_code.__file__).parent
LOADERS = {
    f"{name}.{how}"
    for name in ("AutoModelForCausalLM", "AutoConfig", "AutoTokenizer", "AutoModel", "factory")
    for how in ("from_pretrained", "from_config")
}
pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]


@pytest.fixture(autouse=True, scope="module")
def _modules_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with modules_in(tmp_path_factory.mktemp("modules")):
        yield


@pytest.fixture(autouse=True)
def _nothing_allowed() -> Iterator[None]:
    allow_code({})
    yield
    allow_code({})


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "marker"


@pytest.fixture
def model(tmp_path: Path, marker: Path) -> Path:
    return save_own_code_model(tmp_path / "model", marker)


def _training(model: Path, folder: Path, code: dict[str, str], **spec: Any) -> JobContext:
    values = {"max_steps": 4, "save_steps": 4, "eval_steps": 4, **spec}
    payload = train_payload(model, write_rows(folder / "rows.jsonl"), **values)
    payload["base_model"]["code"] = code
    return make_context(folder / "job", "train", payload)


def _error(context: JobContext) -> dict[str, Any]:
    error: dict[str, Any] = read_records(context)[-1].data["error"]
    return error


def test_a_training_is_refused_trains_once_allowed_and_is_refused_after_a_change(
    model: Path, marker: Path, tmp_path: Path
) -> None:
    """LLaMA-Factory CVE-2026-58116."""
    for name in ("before", "after", "changed"):
        (tmp_path / name).mkdir()
    before = _training(model, tmp_path / "before", {})
    assert run_assignment(before.assignment) == 1
    assert "nobody has allowed" in _error(before)["message"]
    assert "An admin can" in _error(before)["advice"]
    assert not marker.exists()

    allowed = hashes(model)
    after = _training(model, tmp_path / "after", allowed)
    assert run_assignment(after.assignment) == 0
    assert marker.exists()
    losses = [record.data["loss"] for record in read_records(after) if "loss" in record.data]
    assert len(losses) == 4
    assert losses[-1] < losses[0]
    assert (after.folder / "adapter" / "adapter_model.safetensors").is_file()

    marker.unlink()
    with (model / "configuration_tiny.py").open("a") as file:
        file.write("# one more line\n")
    changed = _training(model, tmp_path / "changed", allowed)
    assert run_assignment(changed.assignment) == 1
    assert "configuration_tiny.py" in _error(changed)["message"]
    assert not marker.exists()


def test_what_was_trained_is_merged_proven_and_answers(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = _training(model, tmp_path, hashes(model))
    allow_code(training.payload)
    run_training(training)
    adapter = training.folder / "adapter"
    base = training.payload["base_model"]
    told: list[dict[str, Any]] = []

    def prove_here(task: dict[str, Any], _check_stop: Any) -> dict[str, Any]:
        told.append(task)
        allow_code(task)  # as the process does that proves it
        return prove(task)

    monkeypatch.setattr(merging, "prove_apart", prove_here)
    payload = {"base_model": base, "adapter_path": str(adapter), "adapter_job_id": 1, "dtype": "fp32"}
    merge = make_context(tmp_path / "merge", "merge", payload)
    assert run_merge(merge)["certificate"]["passed"]
    assert told[0]["code"] == hashes(model)
    merged = merge.folder / "merged"
    assert hashes(merged) == hashes(model)
    question = {"base_model": base, "adapter_path": str(adapter), "prompt": "Which colour?", "max_new_tokens": 2}
    assert run_generate(make_context(tmp_path / "answer", "playground", question))["tokens"] == 2
    whole = {**question, "base_model": {**base, "path": str(merged)}, "adapter_path": None}
    assert run_generate(make_context(tmp_path / "merged answer", "playground", whole))["tokens"] == 2


def test_a_model_trained_whole_carries_the_code(model: Path, tmp_path: Path) -> None:
    training = _training(model, tmp_path, hashes(model), method="full", learning_rate=1e-3)
    allow_code(training.payload)
    run_training(training)
    assert hashes(training.folder / "model").items() <= hashes(model).items()
    assert summarise(training.folder / "model")["architecture"] == "TinyForCausalLM"


def test_code_of_another_model_is_not_allowed_by_this_one(model: Path, marker: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(model, tmp_path / "other"))
    (other / "helper.py").write_text("import os\n")
    allow_code({"base_model": {"code": hashes(model)}})
    assert may_run_code(model)
    with pytest.raises(ModelLoadError, match=r"helper\.py"):
        may_run_code(other)
    allow_code({"base_model": {}})
    with pytest.raises(ModelLoadError, match="nobody has allowed"):
        may_run_code(model)
    assert not marker.exists()


@pytest.mark.parametrize("reference", ["acme/other--modeling.Evil", "../outside.Evil", "missing.Evil", "a.b.C", "Evil"])
def test_code_from_elsewhere_is_refused_whatever_was_allowed(model: Path, reference: str) -> None:
    """`owner/name--module.Class` would be fetched from the hub."""
    allow_code({"code": hashes(model)})
    (model.parent / "outside.py").touch()
    path = model / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "text_config": {"auto_map": {"AutoConfig": reference}}}))
    with pytest.raises(ModelLoadError, match="code that is not in its folder"):
        may_run_code(model)


def test_whatever_loads_a_model_asks_the_one_place() -> None:
    """Each call of an Auto class in the worker says by `from_folder`, `may_run_code` or NO_CODE what may be run."""
    calls = 0
    for path in sorted(WORKER.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in LOADERS:
                calls += 1
                given = ast.unparse(node)
                said = ("**from_folder(", "=may_run_code(", "**NO_CODE")
                assert any(word in given for word in said), (path, given)
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                assert ast.unparse(node.value).startswith("may_run_code("), path
    assert calls > 15
