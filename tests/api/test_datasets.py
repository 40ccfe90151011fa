"""Datasets over the API: upload, list, rows, and every refusal with its row."""

from __future__ import annotations

import json

import pytest
from fastapi.testclient import TestClient
from httpx import Response

from app.core.paths import DataFolder
from app.core.settings import Settings
from tests.api.conftest import Shown

pytestmark = pytest.mark.usefixtures("data_lane")

LINE = json.dumps({"instruction": "Q", "output": "A"})
LINES = f"{LINE}\n" * 3


def _upload(client: TestClient, content: str | bytes, filename: str = "rows.jsonl", name: str | None = None):  # type: ignore[no-untyped-def]
    data = {"name": name} if name is not None else {}
    return client.post("/api/v1/datasets", files={"file": (filename, content)}, data=data)


def test_a_file_is_uploaded_listed_and_shown(client: TestClient) -> None:
    response = _upload(client, LINES, name="mine")
    assert response.status_code == 201
    dataset = response.json()
    fields = {
        "id",
        "name",
        "status",
        "error",
        "source",
        "columns",
        "format",
        "kind",
        "rows",
        "bytes",
        "sha256",
        "created_at",
        "recognised_by",
    }
    assert set(dataset) == fields
    assert (dataset["name"], dataset["format"], dataset["kind"], dataset["rows"]) == ("mine", "alpaca", "messages", 3)
    assert dataset["recognised_by"] == ["instruction", "output"]
    assert dataset["source"] == {"kind": "file", "filename": "rows.jsonl"}
    assert (
        client.get("/api/v1/datasets/mine").json() == client.get(f"/api/v1/datasets/{dataset['id']}").json() == dataset
    )
    assert [each["name"] for each in client.get("/api/v1/datasets").json()] == ["mine", "small"]
    assert _upload(client, LINES, "other.jsonl").json()["name"] == "other"


def test_rows_as_they_came_and_as_training_reads_them(client: TestClient) -> None:
    page = client.get("/api/v1/datasets/small/rows", params={"first": 3, "count": 1}).json()
    assert page == {
        "rows": [
            {
                "row": 3,
                "raw": {"instruction": "Say 2.", "input": "", "output": "It is 2."},
                "messages": [{"role": "user", "content": "Say 2."}, {"role": "assistant", "content": "It is 2."}],
            }
        ],
        "total": 4,
    }
    for first in (5, 10**30):
        beyond = client.get("/api/v1/datasets/small/rows", params={"first": first}).json()
        assert beyond == {"rows": [], "total": 4}


DEEP = '{"instruction": "Q", "output": "A", "x": ' + "[" * 300 + "]" * 300 + "}"


@pytest.mark.parametrize(
    ("content", "filename", "message"),
    [
        ("", "a.jsonl", "The dataset is empty"),
        (f"{LINE}\n{{oops\n", "a.jsonl", "row 2: is not valid JSON"),
        (f'{LINE}\n{{"instruction": "Q", "output": ""}}\n', "a.jsonl", "row 2: output: has no answer"),
        (f"{LINE}\n{DEEP}\n", "a.jsonl", "row 2: is nested too deeply"),
        (f'{LINE}\n{{"x": NaN}}\n', "a.jsonl", "row 2: is not valid JSON: NaN"),
        (f'{LINE}\n{{"x": "\\ud800"}}\n', "a.jsonl", "row 2: holds a lone surrogate"),
        (b"\x89PNG\0", "a.jsonl", "is not text"),
        (LINE.encode("utf-16"), "a.json", "is UTF-16 text, not UTF-8"),
        ("instruction,output\nQ,A\nQ\n", "a.csv", "row 2: does not have the header's 2 columns"),
        ("question,answer\nQ,A\n", "a.csv", "format is not known: the first row has the fields 'question', 'answer'"),
        (LINES, "a.html", "must end in .json, .jsonl, .csv"),
    ],
)
def test_unusable_files_are_refused_with_the_row(
    client: TestClient, refused: Shown, folder: DataFolder, content: str | bytes, filename: str, message: str
) -> None:
    error = refused(_upload(client, content, filename), 422, "dataset_format")
    assert error["field"] == "file"
    assert message in error["message"]
    assert len(client.get("/api/v1/datasets").json()) == 1
    assert list(folder.uploads.iterdir()) == []


def test_each_fault_is_listed(client: TestClient, refused: Shown) -> None:
    error = refused(_upload(client, f"{LINE}\n" + "{}\n" * 25), 422)
    assert len(error["faults"]) == 21
    assert error["faults"][0] == {"field": "file", "message": "row 2: instruction: is missing", "advice": None}
    assert error["faults"][-1]["message"] == "and 5 more rows"


def test_a_file_above_the_limit_is_refused(
    client: TestClient, refused: Shown, settings: Settings, folder: DataFolder
) -> None:
    client.app.state.settings = settings.model_copy(update={"max_upload_bytes": 50})  # type: ignore[attr-defined]
    error = refused(_upload(client, LINES), 413, "too_large")
    assert "larger than the limit of 50 bytes" in error["message"]
    assert list(folder.uploads.iterdir()) == []


def test_a_name_is_used_once(client: TestClient, refused: Shown) -> None:
    error = refused(_upload(client, LINES, name="small"), 409, "conflict")
    assert (error["field"], error["advice"]) == ("name", "Give another name.")


@pytest.mark.parametrize(
    ("name", "status"), [("x" * 121, 422), ("a\0b", 422), ("12", 422), ("../../x", 201), ("", 201)]
)
def test_names(client: TestClient, folder: DataFolder, name: str, status: int) -> None:
    response = _upload(client, LINES, name=name)
    assert response.status_code == status
    if status == 422:
        assert response.json()["error"]["field"] == "name"
    else:
        assert response.json()["name"] == (name or "rows")
        assert sorted(path.name for path in (folder.home / "datasets").iterdir()) == ["1", "2"]


TURNS = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]


@pytest.mark.parametrize(
    ("row", "format_name"),
    [
        ({"instruction": "Q", "context": "", "response": "A"}, "dolly"),
        ({"conversations": TURNS}, "sharegpt"),
        ({"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]}, "messages"),
    ],
)
def test_the_recognised_format_is_said(client: TestClient, row: dict[str, object], format_name: str) -> None:
    assert _upload(client, json.dumps(row), name="one").json()["format"] == format_name
    (shown,) = client.get("/api/v1/datasets/one/rows").json()["rows"]
    assert [turn["content"] for turn in shown["messages"]] == ["Q", "A"]


def test_each_kind_of_row_has_its_fields(client: TestClient) -> None:
    rows = {"texts": {"text": "T"}, "pairs": {"prompt": "Q", "chosen": "A", "rejected": "B"}}
    kinds = [_upload(client, json.dumps(row), name=name).json()["kind"] for name, row in rows.items()]
    assert kinds == ["text", "preference"]
    assert client.get("/api/v1/datasets/texts/rows").json()["rows"] == [{"row": 1, "raw": rows["texts"], "text": "T"}]
    (pair,) = client.get("/api/v1/datasets/pairs/rows").json()["rows"]
    assert [pair[field][0] for field in ("prompt", "chosen", "rejected")] == [
        {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}, {"role": "assistant", "content": "B"},
    ]  # fmt: skip


def test_columns_are_mapped_by_repeated_fields(client: TestClient, refused: Shown) -> None:
    def add(*column: str, name: str = "other") -> Response:
        files = {"file": (f"{name}.csv", "question,answer\nQ,A\n")}
        return client.post("/api/v1/datasets", files=files, data={"column": list(column)})

    assert add("prompt=question", "completion=answer", name="faq").json()["format"] == "prompt_completion"
    (row,) = client.get("/api/v1/datasets/faq/rows").json()["rows"]
    assert client.get("/api/v1/datasets/faq").json()["columns"] == {"prompt": "question", "completion": "answer"}
    assert (row["raw"], row["messages"][1]["content"]) == ({"question": "Q", "answer": "A"}, "A")
    error = refused(add("prompt=question", "completion=answers", "x"), 422, "invalid_input")
    assert [fault["field"] for fault in error["faults"]] == ["column"]
    assert "the first row has no 'answers'" in refused(add("completion=answers"), 422, "invalid_input")["message"]
    assert "sharegpt (conversations" in refused(add("prompt=question"), 422, "dataset_format")["advice"]


def test_a_request_without_a_file_is_refused(client: TestClient, refused: Shown) -> None:
    assert refused(client.post("/api/v1/datasets", data={"name": "x"}), 422)["field"] == "file"
    assert refused(client.post("/api/v1/datasets", json={"file": "x"}), 422)["field"] == "file"
