"""A file is checked by a real child: what it tells on its way, how it ends, and what hostile files cost."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.core.database import Database
from app.core.datasets.kinds import RowKind
from app.core.datasets.models import DatasetStatus
from app.core.datasets.report import AT_ONCE
from app.core.datasets.store import Upload, get_dataset, rows_path
from app.core.datasets.uploads import queue_upload
from app.core.errors import JobCancelled
from app.core.jobs import checks, queue
from app.core.jobs.checks import ask_check, read_report
from app.core.jobs.models import Attempt, Job
from app.core.jobs.status import ENDED, JobStatus
from app.core.paths import DataFolder
from tests.data_lane import DataLane
from tests.parquet import run_sql, write_parquet
from tests.worker.contexts import make_context, read_records
from worker.context import StopRequest
from worker.datasets import progress as progress_module
from worker.datasets.uploaded import run_import

GOOD = json.dumps({"prompt": "Q", "completion": "A"})
MEGABYTES = 1 << 20
LIMIT = 600 * MEGABYTES
FLAT = 100 * MEGABYTES  # what a child may hold that reads a row at a time, or none


@dataclass
class Import:
    """How an import ended, and the most memory that its process held."""

    job: Job
    peak_bytes: int

    @property
    def messages(self) -> list[str]:
        assert self.job.error is not None
        return [fault["message"] for fault in self.job.error["faults"]]


Run = Callable[..., Import]


@pytest.fixture
def run(database: Database, folder: DataFolder, data_lane: DataLane) -> Run:
    """Upload a file, and wait until the child that checks it has ended."""

    def run(name: str, content: bytes | Path, columns: dict[str, str] | None = None) -> Import:
        path = content if isinstance(content, Path) else folder.home / "sent"
        if isinstance(content, bytes):
            path.write_bytes(content)
        with Upload(folder, name) as upload, path.open("rb") as stream:
            upload.receive(stream, 10**9)
            with database.write() as session:
                job = queue_upload(session, folder, upload, columns)
        return _wait(database, job)

    return run


def _wait(database: Database, job: Job) -> Import:
    deadline, peak = time.monotonic() + 60, 0
    while job.status not in ENDED:
        assert time.monotonic() < deadline, f"it is {job.status}"
        with database.read() as session:
            job = queue.get_job(session, job.key)
            attempt = session.get(Attempt, (job.key, 1))
        peak = max(peak, _held(attempt.pid if attempt else None))
        time.sleep(0.005)
    return Import(job, peak)


def _held(pid: int | None) -> int:
    """The most that the process has held so far; 0 where it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


def test_a_file_becomes_a_dataset_that_can_be_trained_on(run: Run, database: Database, folder: DataFolder) -> None:
    done = run("faq.csv", b"question,answer\nQ,A\nQ2,A2\n", {"prompt": "question", "completion": "answer"}).job
    assert done.status == JobStatus.COMPLETED
    with database.read() as session:
        dataset = get_dataset(session, "faq")
    assert (dataset.status, dataset.format, dataset.kind, dataset.rows) == (
        DatasetStatus.READY, "prompt_completion", RowKind.MESSAGES, 2,
    )  # fmt: skip
    assert dataset.source == {"kind": "file", "filename": "faq.csv"}
    assert dataset.bytes == 26
    assert sorted(path.name for path in folder.dataset(dataset.key).iterdir()) == [
        "came.jsonl",
        "rows.index",
        "rows.jsonl",
        "source.csv",
    ]
    assert len(rows_path(folder, dataset).read_text().splitlines()) == 2


DEEP = '{"prompt": "Q", "completion": "A", "x": ' + "[" * 10_000 + "]" * 10_000 + "}"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", f'{GOOD}\n{{"x": NaN}}\n', "row 2: is not valid JSON: NaN is not a JSON value"),
        ("a.jsonl", f'{GOOD}\n{{"x": "\\ud800"}}\n', "row 2: holds a lone surrogate"),
        ("a.jsonl", f"{GOOD}\n{DEEP}\n", "row 2: is not valid JSON: it is nested too deeply"),
        ("a.jsonl", f"\ufeff{GOOD}\r\n{GOOD}\r\n{{oops\r\n", "row 3: is not valid JSON"),
        ("a.csv", "prompt;completion\nQ;A\n", "The header's columns are separated by semicolons"),
        ("a.jsonl", GOOD.encode("utf-16"), "The file is UTF-16 text, not UTF-8."),
        ("a.jsonl", gzip.compress(b"0" * 10**7), "The file is compressed (gzip)."),
        ("a.parquet", b"PARE" + b"x" * 100, "The Parquet file is encrypted."),
        ("a.jsonl", '{"prompt": "' + "x" * 10**8 + '"}', "Line 1 is longer than 16,777,216 characters."),
        ("a.json", '[{"prompt": "' + "x" * 3 * 10**7 + '"}]', "Row 1 (line 1 column 2) is longer than 16,777,216"),
        ("a.jsonl", "", "The dataset is empty"),
    ],
    ids=["nan", "surrogate", "deep", "bom-crlf", "semicolons", "utf-16", "gzip", "encrypted", "line", "array", "empty"],
)
def test_bad_files_are_refused_by_row_and_take_no_memory(
    run: Run, name: str, content: str | bytes, message: str
) -> None:
    ended = run(name, content.encode() if isinstance(content, str) else content)
    assert ended.job.status == JobStatus.FAILED
    assert any(each.startswith(message) for each in ended.messages), ended.messages
    assert ended.peak_bytes < FLAT


def _asks_for_4_gb(path: Path) -> bytes:
    """A file of 200 bytes whose page is said to be 4 GB long: its header's first size is replaced."""
    run_sql(f"COPY (SELECT 'abc' AS text) TO '{path}' (FORMAT parquet, COMPRESSION uncompressed)")
    content = path.read_bytes()
    assert content[4:8] == b"\x15\x00\x15\x0e", "a data page of 7 bytes, as Thrift writes it"
    return content[:7] + b"\xfe\xff\xff\xff\x0f" + content[8:]


def _bomb(path: Path) -> bytes:
    query = "SELECT repeat('a', 10000000) AS text FROM range(60)"
    run_sql(f"COPY ({query}) TO '{path}' (FORMAT parquet, COMPRESSION zstd)")
    return path.read_bytes()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_asks_for_4_gb, "Its rows from 1 on take more memory to decode than there is for it."),
        (_bomb, "Its rows from 1 on take more memory to decode than there is for it."),
    ],
)
def test_a_parquet_bomb_is_refused_in_bounded_memory(
    run: Run, tmp_path: Path, make: Callable[[Path], bytes], message: str
) -> None:
    content = make(tmp_path / "made.parquet")
    assert len(content) < 2000
    ended = run("bomb.parquet", content)
    assert ended.messages[0].startswith(message)
    assert 0 < ended.peak_bytes < LIMIT


def test_a_row_that_asks_for_more_memory_than_there_is_has_its_number(run: Run) -> None:
    """Small objects within each other take some forty times their text."""
    row = '{"x": [' + ",".join(['{"":' * 5 + "0" + "}" * 5] * 570_000) + "]}"
    ended = run("objects.jsonl", f"{GOOD}\n{row}\n{{oops\n".encode())
    assert ended.messages[0] == "row 2: holds more than fits into the memory that may be taken (line 2)"
    assert ended.messages[1].startswith("row 3: is not valid JSON")
    assert ended.peak_bytes < LIMIT


def test_problems_and_progress_are_told_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "_FIRST_PAUSE_SECONDS", 0.0)
    target = tmp_path / "dataset"
    target.mkdir()
    (target / "source.jsonl").write_text('{"prompt": "Q", "completion": ""}\n' + f"{GOOD}\n" * 2000)
    context = make_context(tmp_path / "job", "import", _payload(target))
    with pytest.raises(Exception, match="row 1: completion: has no answer"):
        run_import(context)
    records = read_records(context)
    told = [record.data for record in records if record.kind == "summary"]
    assert told == [{"problems": []}, {"problems": ["row 1: completion: has no answer: it is empty"]}]
    steps = [record for record in records if record.kind == "progress"]
    size = (target / "source.jsonl").stat().st_size
    assert {record.data["max_steps"] for record in steps} == {size}
    assert [record.step for record in steps] == sorted(record.step or 0 for record in steps)
    assert steps[-1].data["eta_seconds"] is not None
    assert [path.name for path in target.iterdir()] == ["source.jsonl"], "no half of a copy is left"


def test_rows_of_parquet_are_counted(tmp_path: Path) -> None:
    target = tmp_path / "dataset"
    target.mkdir()
    write_parquet(target / "source.parquet", [{"text": "T"}] * 300)
    context = make_context(tmp_path / "job", "import", _payload(target))
    assert run_import(context)["rows"] == 300
    last = [record for record in read_records(context) if record.kind == "progress"][-1]
    assert (last.step, last.data["max_steps"]) == (300, 300)


def test_a_cancel_ends_it_between_rows(tmp_path: Path) -> None:
    target = tmp_path / "dataset"
    target.mkdir()
    (target / "source.jsonl").write_text(f"{GOOD}\n" * 10)
    context = make_context(tmp_path / "job", "import", _payload(target))
    context.stop_request = StopRequest.CANCEL
    with pytest.raises(JobCancelled):
        run_import(context)
    assert [path.name for path in target.iterdir()] == ["source.jsonl"]


def _payload(target: Path) -> dict[str, Any]:
    facts = {"source": {"kind": "file", "filename": "a"}, "columns": {}, "bytes": 1, "sha256": "s"}
    return {"dataset_id": 1, "name": "a", "target": str(target), **facts}


def test_an_import_that_was_interrupted_begins_anew(run: Run, folder: DataFolder) -> None:
    """Half a copy lies there, as after `kill -9` of the child."""
    (folder.dataset(1)).mkdir()
    (folder.dataset(1) / "rows.jsonl.part").write_text("half")
    assert run("a.jsonl", f"{GOOD}\n".encode()).job.status == JobStatus.COMPLETED


def test_few_rows_bring_the_report_that_a_check_would_make_and_many_do_not(
    run: Run, database: Database, folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = b'{"prompt": "caf\xc3\x83\xc2\xa9", "completion": "A"}\n'
    done = run("few.jsonl", row * 3).job
    with database.write() as session:
        dataset = get_dataset(session, "few")
        told = ask_check(session, dataset)
        assert told.id == done.id, "nothing is asked of the worker"
        monkeypatch.setattr(checks, "__version__", "another")
        asked = ask_check(session, dataset)
    assert asked.id != done.id
    assert read_report(told) == read_report(_wait(database, asked).job)
    assert (read_report(told)["counts"], read_report(told)["duplicates"]) == ({"mojibake": 3}, 2)
    assert AT_ONCE not in run("many.jsonl", row * 60_000).job.summary


def test_a_light_child_starts_soon_and_imports_no_torch() -> None:
    code = "import sys, worker.child, worker.imports, worker.datasets.uploaded; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "pydantic", "sqlalchemy", "huggingface_hub", "duckdb"} & set(modules)
