"""A hub dataset is downloaded by the real client from a hub on this machine, and becomes a dataset's own folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from app.core.datasets.hub import set_facts
from app.core.datasets.models import Dataset
from app.core.datasets.preview import preview_raw
from app.core.errors import DatasetImportError, JobCancelled
from app.core.paths import DataFolder
from tests.parquet import write_parquet
from tests.worker.contexts import make_context, read_records
from tests.worker.fake_hub import COMMIT, Hub
from worker.artifacts.disk import DiskFull
from worker.base_models.stages import Stages
from worker.context import JobContext, StopRequest
from worker.datasets.importer import FileRows, run_import

LATER = "beef" * 10

Files = dict[str, str | bytes]
Run = Callable[..., dict[str, Any]]


def lines(*answers: str) -> str:
    return "".join(json.dumps({"instruction": f"Say {a}.", "output": a}) + "\n" for a in answers)


def publish(hub: Hub, folder: Path, files: Files, commit: str = COMMIT) -> None:
    """Serve the files as `owner/data`, as its newest commit."""
    for name, content in files.items():
        path = folder / commit / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    hub.datasets.setdefault("owner/data", {})[commit] = folder / commit


@pytest.fixture
def context(tmp_path: Path) -> JobContext:
    return make_context(tmp_path / "job", "import", {})


@pytest.fixture
def run(tmp_path: Path, context: JobContext) -> Run:
    def run(columns: dict[str, str] | None = None, **source: str) -> dict[str, Any]:
        context.payload = {
            "dataset_id": 3,
            "name": "data",
            "source": {"kind": "hub", "hub_id": "owner/data", **source},
            "columns": columns or {},
            "target": str(tmp_path / "datasets" / "3"),
        }
        return run_import(context)

    return run


def refused(run: Run, tmp_path: Path, **source: Any) -> str:
    with pytest.raises(DatasetImportError) as caught:
        run(**source)
    assert [path.name for path in (tmp_path / "datasets").glob("*")] == []
    return f"{caught.value.message} {caught.value.advice}"


def test_one_file_is_registered_with_what_it_holds(hub: Hub, tmp_path: Path, run: Run, context: JobContext) -> None:
    content = lines("one", "two")
    publish(hub, tmp_path, {"train.jsonl": content, "README.md": "# Data", "big.bin": "not wanted"})
    facts = run()
    folder = tmp_path / "datasets" / "3"
    digest = hashlib.sha256(content.encode()).hexdigest()
    assert facts.pop("doctor")["report"]["rows"] == 2
    assert facts == {
        "format": "alpaca",
        "kind": "messages",
        "columns": {},
        "rows": 2,
        "bytes": len(content),
        "sha256": digest,
        "rows_sha256": hashlib.sha256((folder / "rows.jsonl").read_bytes()).hexdigest(),
        "source": {
            "kind": "hub",
            "hub_id": "owner/data",
            "revision": COMMIT,
            "config": "default",
            "split": "train",
            "files": [{"path": "train.jsonl", "bytes": len(content), "sha256": digest, "rows": 2}],
        },
    }
    assert sorted(path.name for path in folder.iterdir()) == ["came.jsonl", "rows.index", "rows.jsonl", "source.jsonl"]
    assert json.loads((folder / "rows.jsonl").read_text().splitlines()[1])["messages"][1]["content"] == "two"
    assert hub.downloads == ["README.md", "train.jsonl"]
    records = read_records(context)
    assert [record.data["phase"] for record in records if record.kind == "phase"] == ["download", "convert", "save"]
    assert [(each.step, each.data["max_steps"]) for each in records if each.kind == "progress"][-1] == (5, 5)


def test_shards_are_one_dataset_in_their_order(hub: Hub, tmp_path: Path, run: Run) -> None:
    parts = [lines("a", "b"), lines("c"), lines("d", "e")]
    publish(hub, tmp_path, {f"train-{number}.jsonl": part for number, part in zip((2, 9, 10), parts, strict=True)})
    facts = run()
    assert [(file["path"], file["rows"]) for file in facts["source"]["files"]] == [
        ("train-2.jsonl", 2), ("train-9.jsonl", 1), ("train-10.jsonl", 2),
    ]  # fmt: skip
    assert facts["sha256"] == hashlib.sha256("".join(parts).encode()).hexdigest()
    assert (facts["rows"], facts["bytes"]) == (5, sum(map(len, parts)))
    folder = tmp_path / "datasets" / "3"
    rows = [json.loads(line)["messages"][1]["content"] for line in (folder / "rows.jsonl").read_text().splitlines()]
    assert rows == ["a", "b", "c", "d", "e"]
    assert [path.read_text() for path in sorted(folder.glob("source.*"))] == parts
    dataset = Dataset(id=3, name="data", created_at=0.0)
    set_facts(dataset, facts)
    for first in range(1, 7):
        shown = [row["output"] for row in preview_raw(DataFolder(tmp_path), dataset, first, count=3)]
        assert shown == rows[first - 1 : first + 2]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.json", json.dumps([{"prompt": "Q", "completion": "A"}])),
        ("rows.csv", "prompt,completion\nQ,A\n"),
        ("data/train-00000-of-00001.jsonl", '{"prompt": "Q", "completion": "A"}\n'),
    ],
)
def test_each_type_of_file_is_read(hub: Hub, tmp_path: Path, run: Run, name: str, content: str) -> None:
    publish(hub, tmp_path, {name: content})
    facts = run()
    assert (facts["format"], facts["rows"], facts["source"]["files"][0]["path"]) == ("prompt_completion", 1, name)


def test_parquet_of_the_hubs_own_branch_is_read(hub: Hub, tmp_path: Path, run: Run) -> None:
    publish(hub, tmp_path, {"data.py": "raise SystemExit"})
    message = refused(run, tmp_path)
    assert "makes its rows by Python code, which is never run here" in message
    assert "refs/convert/parquet" in message
    folder = tmp_path / "converted" / "default" / "train"
    folder.mkdir(parents=True)
    for number in range(2):
        pair = {"prompt": "Q", "chosen": f"good {number}", "rejected": "bad"}
        write_parquet(folder / f"000{number}.parquet", [pair, pair])
    hub.datasets["owner/data"] = {LATER: tmp_path / "converted", **hub.datasets["owner/data"]}
    hub.branches["refs/convert/parquet"] = LATER
    facts = run(revision="refs/convert/parquet")
    assert (facts["format"], facts["kind"], facts["rows"]) == ("preference", "preference", 4)
    assert [file["path"] for file in facts["source"]["files"]] == [
        "default/train/0000.parquet", "default/train/0001.parquet",
    ]  # fmt: skip


def test_config_and_split_choose_files(hub: Hub, tmp_path: Path, run: Run) -> None:
    readme = "---\nconfigs:\n- config_name: a\n  data_dir: a\n- config_name: b\n  data_dir: b\n---\n"
    publish(hub, tmp_path, {"README.md": readme, "a/train.jsonl": lines("x"), "b/train.jsonl": lines("y", "z"),
                            "b/test.jsonl": lines("t")})  # fmt: skip
    assert run(config="b", split="train")["rows"] == 2
    assert hub.downloads == ["README.md", "train.jsonl"]


def test_columns_are_mapped(hub: Hub, tmp_path: Path, run: Run) -> None:
    publish(hub, tmp_path, {"x.csv": "q,a\nQ,A\n"})
    columns = {"prompt": "q", "completion": "a"}
    facts = run(columns)
    assert (facts["format"], facts["columns"]) == ("prompt_completion", columns)


def test_what_is_left_out_is_noted(hub: Hub, tmp_path: Path, run: Run) -> None:
    turns = [{"from": "gpt", "value": "…"}, {"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]
    publish(hub, tmp_path, {f"{name}.jsonl": json.dumps({"conversations": turns}) + "\n" for name in "ab"})
    (notice,) = run()["source"]["notices"]
    assert "1 of a.jsonl" in notice


def test_a_branch_is_pinned_to_the_commit_that_it_was(hub: Hub, tmp_path: Path, run: Run) -> None:
    publish(hub, tmp_path, {"train.jsonl": lines("old")})
    publish(hub, tmp_path, {"train.jsonl": lines("new", "newer")}, LATER)
    hub.branches["v1"] = COMMIT
    assert (run()["source"]["revision"], run(revision=LATER)["rows"]) == (LATER, 2)
    for revision in ("v1", COMMIT):
        facts = run(revision=revision)
        assert (facts["source"]["revision"], facts["rows"]) == (COMMIT, 1)


def test_all_files_are_of_the_commit_that_was_resolved_first(hub: Hub, tmp_path: Path, run: Run) -> None:
    publish(hub, tmp_path, {"README.md": "# Data", "a.jsonl": lines("old"), "b.jsonl": lines("old")})

    def commit_meanwhile(name: str) -> None:
        if name == "a.jsonl":
            publish(hub, tmp_path, {"a.jsonl": lines("new"), "b.jsonl": lines("new")}, LATER)

    hub.on_download = commit_meanwhile
    facts = run()
    assert facts["source"]["revision"] == COMMIT
    assert "new" not in (tmp_path / "datasets" / "3" / "rows.jsonl").read_text()


def test_what_is_in_the_cache_is_not_downloaded_again(hub: Hub, tmp_path: Path, run: Run) -> None:
    publish(hub, tmp_path, {"train.jsonl": lines("x")})
    first = run()
    assert run() == first
    assert hub.downloads == ["train.jsonl"]


def test_what_cannot_be_had_is_told_apart(hub: Hub, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    message = refused(run, tmp_path)
    assert message.startswith("The hub has no dataset owner/data, or it is private.")
    assert "secrets set hf_token" in message
    publish(hub, tmp_path, {"train.jsonl": lines("x")})
    assert refused(run, tmp_path, revision="v9") == (
        "owner/data has no revision 'v9'. Name a branch, a tag or a whole commit id of its hub page."
    )
    hub.gated.add("owner/data")
    message = refused(run, tmp_path)
    assert message.startswith("Access to owner/data must be requested on its hub page.")
    assert "secrets set hf_token" in message
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the discard port: nothing listens
    message = refused(run, tmp_path)
    assert message.startswith("The hub cannot be reached, so the files of owner/data are not known: ")
    assert message.endswith("Connect the machine and import again, or upload the data file.")


def test_what_is_not_clear_or_not_there_is_listed(hub: Hub, tmp_path: Path, run: Run) -> None:
    publish(hub, tmp_path, {"train.jsonl": lines("x"), "test.jsonl": lines("y")})
    assert refused(run, tmp_path).startswith("owner/data has several splits: there are test, train.")
    assert refused(run, tmp_path, split="dev").startswith("owner/data has no split 'dev': there are test, train.")
    publish(hub, tmp_path, {"picture.png": "x"}, LATER)
    assert "has no data file of a known type" in refused(run, tmp_path)
    assert hub.downloads == []


def test_rows_that_cannot_be_used_are_named(hub: Hub, tmp_path: Path, run: Run) -> None:
    publish(hub, tmp_path, {"train-1.jsonl": lines("x"), "train-2.jsonl": lines("y", "") + "{broken\n"})
    message = refused(run, tmp_path)
    assert message.startswith(
        "owner/data, split train: row 2 of train-2.jsonl: output: has no answer: it is empty\nrow 3 of "
    )
    assert message.endswith(
        "(line 3 column 2). Choose another dataset; or download it, put these rows in order, and upload it."
    )
    assert "\nrow 3 of train-2.jsonl: is not valid JSON" in message
    publish(hub, tmp_path, {"train.jsonl": lines("x", "")}, LATER)
    assert "row 2: output: has no answer" in refused(run, tmp_path)


def test_an_unknown_format_is_said_with_its_fields(hub: Hub, tmp_path: Path, run: Run) -> None:
    publish(hub, tmp_path, {"train.jsonl": '{"q": "Q", "a": "A"}\n'})
    message = refused(run, tmp_path)
    assert "the first row has the fields 'q', 'a'" in message
    assert "Known formats: " in message
    assert "Or map columns to their fields" in message
    assert "the first row has no 'question'" in refused(run, tmp_path, columns={"prompt": "question"})


def test_a_damaged_file_is_named(hub: Hub, tmp_path: Path, run: Run) -> None:
    publish(hub, tmp_path, {"a.jsonl": lines("x"), "b.jsonl": b"\0\1\2"})
    assert "b.jsonl: The file is not text (it holds NUL bytes)." in refused(run, tmp_path)


def test_a_full_disk_is_said_before_anything_is_downloaded(
    hub: Hub, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(hub, tmp_path, {"train.jsonl": lines("x")})
    needed: list[tuple[str, int]] = []
    size = len(lines("x"))
    with monkeypatch.context() as patch:
        patch.setattr("worker.datasets.hub.check_free_space", lambda path, count: needed.append((path.name, count)))
        run()
        assert needed == [("datasets--owner--data", 2 * size), ("rows.jsonl", size)]
        run()  # what is cached needs no room
        assert needed[2:] == [("datasets--owner--data", size), ("rows.jsonl", size)]
    monkeypatch.setattr("worker.artifacts.disk._SPARE_BYTES", 1 << 60)
    hub.downloads.clear()
    with pytest.raises(DiskFull, match="of free disk space"):
        run()
    assert hub.downloads == []


def test_a_cancel_takes_effect_within_a_file(hub: Hub, tmp_path: Path, run: Run, context: JobContext) -> None:
    publish(hub, tmp_path, {"a.jsonl": lines("x"), "b.jsonl": lines("y")})

    def cancel(_name: str) -> None:
        context.stop_request = StopRequest.CANCEL

    hub.on_download = cancel
    with pytest.raises(JobCancelled):
        run()
    assert hub.downloads == ["a.jsonl"]
    assert not list((tmp_path / "hub-cache").rglob("*/snapshots/*/*.jsonl"))
    assert not (tmp_path / "datasets").exists()


def test_a_cancel_takes_effect_between_rows(
    tmp_path: Path, context: JobContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.datasets.importer._ROWS_BETWEEN_STOPS", 2)
    file = tmp_path / "a.jsonl"
    file.write_text(lines("x", "y", "z"))
    rows = iter(FileRows([file], ["a.jsonl"], Stages(context, total=1)))
    assert next(rows)[0] == 1
    context.stop_request = StopRequest.CANCEL
    with pytest.raises(JobCancelled):
        next(rows)
