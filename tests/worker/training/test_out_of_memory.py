"""Training runs out of memory: under a limit, and where torch says so; the page tells what happened and what to do."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient

from app.core.database import Database
from app.core.datasets.store import add_file
from app.core.jobs.models import Job
from app.core.jobs.queue import get_job
from app.core.jobs.spec import parse_spec
from app.core.jobs.status import ENDED, JobStatus
from app.core.jobs.submit import submit_training
from app.core.models.models import BaseModel, ModelStatus
from app.core.paths import DataFolder
from app.core.settings import Settings
from app.main import create_app
from tests.conftest import LINEAR_MODULES
from tests.worker.starved_child import MESSAGE
from tests.worker.tiny import train_payload, write_rows
from worker.children import CHILD_COMMAND, Children
from worker.context import JobContext
from worker.gpu import Sampler
from worker.in_hand import read_in_hand
from worker.loop import Worker
from worker.probe import Probe
from worker.training.autopsy import count_held_bytes, describe_allocator
from worker.training.device_limit import VARIABLE, DeviceLimitReached
from worker.training.train import run_training

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]

STARVED_CHILD = (sys.executable, "-m", "tests.worker.starved_child")
PATIENCE_SECONDS = 120.0
LIMIT = 1_000_000  # bytes: between what a batch of 8 takes and what a batch of 1 takes
SPEC = {"max_steps": 2, "per_device_train_batch_size": 8, "eval_fraction": 0.0, "save_steps": 50}


def test_a_smaller_batch_passes_under_the_limit_that_the_larger_one_reaches(
    make_job: Callable[..., JobContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(LIMIT))
    context = make_job(**SPEC)
    with pytest.raises(DeviceLimitReached) as caught:
        run_training(context)
    figures = caught.value.figures()
    assert 0 < figures["allocated_bytes"] <= figures["total_bytes"] == LIMIT
    noted = read_in_hand(context.folder)
    assert noted == context.in_hand.last
    assert (noted["step"], noted["micro_batch"], noted["sequences"]) == (1, 1, 8)
    rows = [number for number, _ in noted["longest"]]
    assert set(rows) <= set(range(1, 25))
    assert [length for _, length in noted["longest"]] == sorted((n for _, n in noted["longest"]), reverse=True)

    summary = run_training(make_job(**{**SPEC, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 8}))
    assert summary["steps"] == 2


def test_what_is_held_is_told_apart_and_counted_once() -> None:
    model = torch.nn.Linear(10, 10, bias=False)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 10)).sum().backward()
    optimizer.step()
    batch = torch.ones(25)
    objects = [model.weight, optimizer, batch, batch[5:], "no tensor", model.weight]
    state = optimizer.state[model.weight]
    of_state = sum(value.nbytes for value in state.values())
    assert count_held_bytes(objects) == {"weights": 400, "gradients": 400, "optimizer": of_state, "other": 100}


def test_cudas_allocator_is_asked_by_the_names_that_torch_has(monkeypatch: pytest.MonkeyPatch) -> None:
    stats = {
        "allocated_bytes.all.current": 5, "allocated_bytes.all.peak": 8, "reserved_bytes.all.current": 9,
        "inactive_split_bytes.all.current": 2, "num_alloc_retries": 1,
    }  # fmt: skip
    documented = torch.cuda.memory_stats.__doc__ or ""
    assert [name for name in stats if name.partition(".")[0] not in documented] == []
    for name, value in (("is_available", True), ("memory_stats", stats), ("mem_get_info", (3, 16))):
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    monkeypatch.setattr(torch.cuda, "memory_summary", lambda **_: "a table")
    allocator = describe_allocator(torch.OutOfMemoryError("full"))
    assert set(allocator.pop("held")) == {"weights", "gradients", "optimizer", "other"}
    assert allocator == {
        "source": "cuda", "allocated_bytes": 5, "peak_allocated_bytes": 8, "reserved_bytes": 9,
        "inactive_split_bytes": 2, "retries": 1, "free_bytes": 3, "total_bytes": 16,
    }  # fmt: skip


class Starved:
    """A data folder with a queued job, and a worker whose children run `command`."""

    def __init__(self, home: Path, model: Path, command: tuple[str, ...]) -> None:
        home.mkdir()
        self.settings = Settings(home=home / "home", cache=home / "cache")
        folder = DataFolder(self.settings.home).create()
        self.database = Database(self.settings.effective_database_url)
        self.database.migrate(folder.backups)
        rows = write_rows(home / "rows.jsonl")
        with self.database.write() as session:
            base = BaseModel(name="tiny", status=ModelStatus.READY, path=str(model), created_at=0.0)
            base.linear_modules, base.architecture = LINEAR_MODULES, "LlamaForCausalLM"
            session.add(base)
            add_file(session, folder, rows, "boxes")
            submit_training(session, parse_spec(train_payload(model, rows, **SPEC)["spec"]), None)
        children = Children(keep_spare=False, log=folder.home / "spare.log", command=command)
        probe = Probe(self.database, folder.home / "probe.log", ("true",))
        self.worker = Worker(self.settings, self.database, children, Sampler(folder.home), probe)

    def job(self, number: int = 1) -> Job:
        with self.database.read() as session:
            return get_job(session, number)

    def end(self) -> None:
        self.worker.stop()
        self.worker.run()
        self.database.engine.dispose()


@pytest.fixture(scope="module")
def starved(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[dict[str, Starved]]:
    """Two jobs as real workers and real children leave them: one under a limit, one with an error of torch's."""
    home = tmp_path_factory.mktemp("starved")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(__file__).parents[3])
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv(VARIABLE, str(LIMIT))
        found = {"limit": Starved(home / "limit", tiny_model, CHILD_COMMAND)}
        found["limit"].worker.start()
        found["limit"].worker.run_once()  # starts its child, and with it the limit
        patch.delenv(VARIABLE)
        found["injected"] = Starved(home / "injected", tiny_model, STARVED_CHILD)
        found["injected"].worker.start()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while any(each.job().status not in ENDED for each in found.values()):
            assert time.monotonic() < deadline, "the jobs did not end in time"
            for each in found.values():
                each.worker.run_once()
            time.sleep(0.02)
    yield found
    for each in found.values():
        each.end()


@pytest.mark.parametrize(
    ("name", "step", "message", "source"),
    [
        ("limit", 1, f"Out of memory under the limit of {VARIABLE}", "limit"),
        ("injected", 2, MESSAGE, "process"),
    ],
    ids=["limit", "injected"],
)
def test_page_of_a_starved_job_offers_changes_that_queue_it_again(
    starved: dict[str, Starved], name: str, step: int, message: str, source: str
) -> None:
    job = starved[name].job()
    error: dict[str, Any] = job.error or {}
    assert (job.status, error["kind"]) == (JobStatus.FAILED, "out_of_memory")
    assert error["message"].startswith(message)
    autopsy = error["autopsy"]
    assert (autopsy["memory"], autopsy["phase"], autopsy["step"]) == ("device", "train", step)
    assert (autopsy["batch"]["sequences"], autopsy["allocator"]["source"]) == (8, source)
    assert autopsy["allocator"]["held"]["weights"] > 0

    app = create_app(starved[name].settings)
    with TestClient(app, base_url="http://127.0.0.1", headers={"Authorization": f"Bearer {app.state.token}"}) as client:
        page = client.get(f"/jobs/{job.id}").text
        assert "Out of memory: what to change" in page
        assert "Batch 1, accumulation 8" in page
        assert 'id="autopsy-chart"' in page
        again = client.post(f"/jobs/{job.id}/changes", data={"change": "batch-1"}, follow_redirects=False)
        assert again.headers["location"] == f"/jobs/{job.key + 1}"
    spec = starved[name].job(job.key + 1).spec
    assert (spec["per_device_train_batch_size"], spec["gradient_accumulation_steps"]) == (1, 8)
