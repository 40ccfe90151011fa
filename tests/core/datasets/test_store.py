"""Datasets are registered whole or not at all, by id, with a checked copy that training reads."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlmodel import Session, select

from app.core.database import Database
from app.core.datasets import store
from app.core.datasets.formats import FORMATS
from app.core.datasets.models import Dataset
from app.core.datasets.normalise import MAX_FAULTS, UnknownFormat
from app.core.datasets.preview import preview_raw, preview_rows
from app.core.datasets.store import (
    Upload,
    add_file,
    find_dataset,
    get_dataset,
    rows_path,
)
from app.core.errors import AppError, Conflict, DatasetFormatError, InvalidInput, NotFound, TooLarge
from app.core.paths import DataFolder
from tests.parquet import write_parquet

ROW = {"instruction": "Q", "output": "A"}
LINE = json.dumps(ROW)
LINES = f"{LINE}\n" * 3


def _refused(
    add: Callable[..., Dataset], folder: DataFolder, kind: type[AppError], content: str | bytes, **options: object
) -> AppError:
    with pytest.raises(kind) as caught:
        add(content, **options)
    assert list(folder.uploads.iterdir()) == [], "something was left behind"
    assert list((folder.home / "datasets").iterdir()) == []
    return caught.value


def _fault_of(add: Callable[..., Dataset], content: str) -> DatasetFormatError:
    with pytest.raises(DatasetFormatError) as caught:
        add(content)
    return caught.value


@pytest.mark.parametrize(
    ("filename", "content", "format_name"),
    [
        ("a.jsonl", LINES, "alpaca"),
        ("a.json", f"[{LINE},{LINE},{LINE}]", "alpaca"),
        ("a.csv", "instruction,output\n" + "Q,A\n" * 3, "alpaca"),
        ("A.CSV", "prompt,completion\r\n" + "Q,A\r\n" * 3, "prompt_completion"),
        ("a.jsonl", (json.dumps({"messages": [{"role": "user", "content": "Q"},
                                              {"role": "assistant", "content": "A"}]}) + "\n") * 3, "messages"),
    ],
)  # fmt: skip
def test_a_registered_file(
    add: Callable[..., Dataset], folder: DataFolder, filename: str, content: str, format_name: str
) -> None:
    dataset = add(content, filename)
    assert (dataset.name, dataset.format, dataset.rows) == (Path(filename).stem, format_name, 3)
    assert (dataset.bytes, dataset.sha256) == (len(content), hashlib.sha256(content.encode()).hexdigest())
    source = folder.dataset(dataset.key) / f"source{Path(filename).suffix.lower()}"
    assert source.read_bytes() == content.encode()
    rows = rows_path(folder, dataset).read_bytes()
    assert hashlib.sha256(rows).hexdigest() == dataset.rows_sha256
    conversation = {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]}
    assert [json.loads(line) for line in rows.splitlines()] == [conversation] * 3
    assert list(folder.uploads.iterdir()) == []


def test_preview_shows_rows_as_they_came_and_as_training_reads_them(
    add: Callable[..., Dataset], folder: DataFolder
) -> None:
    rows = [{"instruction": f"Q{n}", "output": "A", "note": n} for n in range(1, 6)]
    dataset = add("".join(json.dumps(row) + "\n" for row in rows))
    assert preview_raw(folder, dataset, first=2, count=2) == rows[1:3]
    assert [row["messages"][0]["content"] for row in preview_rows(folder, dataset, first=4, count=9) if row] == [
        "Q4",
        "Q5",
    ]
    for first in (6, 10**30):
        assert preview_raw(folder, dataset, first) == preview_rows(folder, dataset, first) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            f"{LINE}\n{{oops\n",
            "file: row 2: is not valid JSON: Expecting property name enclosed in double quotes (line 2 column 2)",
        ),
        (f"{LINE}\n{LINE}\n" + json.dumps({"instruction": "Q", "output": ""}), "row 3: output: has no answer"),
        ("", "The dataset is empty: it holds no rows."),
        ("\n\n", "The dataset is empty: it holds no rows."),
        (b"\0\1", "The file is not text"),
        (b"\xff\xfa", "The file is not UTF-8 text (line 1)"),
        ('{"instruction": "Q", "output": "A", "x": NaN}', "row 1: is not valid JSON: NaN"),
        ('{"question": "Q"}', "The rows' format is not known: the first row has the fields 'question'."),
        ("{}", "The rows' format is not known: the first row has the fields none."),
        (
            '{"prompt": "Q", "completion": "A"}\n' + LINE,
            "row 2: is alpaca, but the file's first row is prompt_completion",
        ),
    ],
)
def test_an_unusable_file_leaves_nothing_behind(
    add: Callable[..., Dataset], folder: DataFolder, content: str | bytes, message: str
) -> None:
    error = _refused(add, folder, DatasetFormatError, content)
    assert message in error.message
    assert isinstance(error, InvalidInput)
    assert {fault.field for fault in error.faults} == {"file"}


def test_unknown_fields_come_with_the_known_formats(add: Callable[..., Dataset], folder: DataFolder) -> None:
    advice = str(_refused(add, folder, DatasetFormatError, '{"q": 1}').advice)
    assert "alpaca (instruction, [input], output, [system], [history]: history a list of [question, answer])" in advice
    assert all(name in advice for name in FORMATS)


def test_the_format_is_of_the_first_row_that_can_be_read(add: Callable[..., Dataset], folder: DataFolder) -> None:
    error = _refused(add, folder, DatasetFormatError, f"oops\n{LINE}\n")
    assert error.message.startswith("file: row 1: is not valid JSON")
    assert "row 2" not in error.message


def test_many_faults_are_named_up_to_a_limit_and_then_counted(add: Callable[..., Dataset], folder: DataFolder) -> None:
    error = _refused(add, folder, DatasetFormatError, f"{LINE}\n" + '{"instruction": "Q"}\n' * (MAX_FAULTS + 7))
    assert isinstance(error, InvalidInput)
    messages = [fault.message for fault in error.faults]
    assert len(messages) == MAX_FAULTS + 1
    assert messages[0].startswith("row 2: ")
    assert messages[-1] == "and 7 more rows"


@pytest.mark.parametrize("filename", ["", "rows", "rows.txt", "rows.jsonl.html", ".csv"])
def test_other_suffixes_are_refused(add: Callable[..., Dataset], folder: DataFolder, filename: str) -> None:
    _refused(add, folder, DatasetFormatError, LINES, filename=filename)


def test_the_size_limit_is_exact(add: Callable[..., Dataset], folder: DataFolder) -> None:
    error = _refused(add, folder, TooLarge, LINES, limit=len(LINES) - 1)
    assert error.message == f"'rows.jsonl' is larger than the limit of {len(LINES) - 1:,} bytes."
    assert add(LINES, limit=len(LINES)).rows == 3


def test_no_more_than_the_limit_is_written(folder: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_CHUNK_BYTES", 10)
    stream = io.BytesIO(b"x" * 1000)
    with Upload(folder, "rows.jsonl") as upload:
        with pytest.raises(TooLarge):
            upload.receive(stream, max_bytes=95)
        assert sum(path.stat().st_size for path in folder.uploads.rglob("*") if path.is_file()) <= 95
    assert stream.tell() == 100


def test_a_name_is_used_once(add: Callable[..., Dataset], folder: DataFolder) -> None:
    add(LINES, name="mine")
    with pytest.raises(Conflict, match="A dataset named 'mine' is registered already") as caught:
        add(LINES, name=" mine ")
    assert (caught.value.advice, caught.value.field) == ("Give another name.", "name")
    assert list(folder.uploads.iterdir()) == []


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..", "<script>", "mô hình ☃"])
def test_a_name_is_text_and_folders_are_ids(add: Callable[..., Dataset], folder: DataFolder, name: str) -> None:
    dataset = add(LINES, filename=f"{name}.jsonl", name=name)
    assert dataset.name == name
    assert [path.name for path in (folder.home / "datasets").iterdir()] == [str(dataset.id)]


@pytest.mark.parametrize("name", [" ", "a\0b", "a\u202eb", "a\x1b[0m"])
def test_a_name_that_cannot_be_shown_is_refused(add: Callable[..., Dataset], folder: DataFolder, name: str) -> None:
    with pytest.raises(InvalidInput, match="name: A dataset needs a printable name"):
        add(LINES, name=name)
    assert list(folder.uploads.iterdir()) == []


@pytest.mark.parametrize("name", ["2", "007", " 12 ", "٣"])
def test_a_name_that_could_be_an_id_is_refused(add: Callable[..., Dataset], folder: DataFolder, name: str) -> None:
    for options in ({"name": name}, {"filename": f"{name}.jsonl"}):
        error = _refused(add, folder, InvalidInput, LINES, **options)
        assert isinstance(error, InvalidInput)
        assert [fault.field for fault in error.faults] == ["name"]
        assert "is a number, as ids are" in error.message


def test_blank_lines_change_no_rows_number(add: Callable[..., Dataset], folder: DataFolder) -> None:
    rows = [json.dumps({"instruction": f"Q{n}", "output": "A"}) for n in (1, 2, 3)]
    dataset = add("\n\n".join(rows) + "\n\n")
    assert preview_raw(folder, dataset, first=3)[0]["instruction"] == "Q3"
    assert preview_rows(folder, dataset, first=3)[0]["messages"][0]["content"] == "Q3"
    rows[2] = '{"instruction": "Q3", "output": ""}'
    error = _fault_of(add, "\n\n".join(rows))
    assert error.message == "file: row 3: output: has no answer: it is empty"


def test_rows_of_several_formats_are_named(add: Callable[..., Dataset]) -> None:
    others = [{"prompt": "Q", "completion": "A"}, {"instruction": "Q", "response": "A"}, {"messages": []}]
    error = _fault_of(add, "\n".join([LINE, *map(json.dumps, others)]))
    for number, name in ((2, "prompt_completion"), (3, "dolly"), (4, "messages")):
        assert f"row {number}: is {name}, but the file's first row is alpaca" in error.message


def test_rows_of_several_kinds_are_named(add: Callable[..., Dataset]) -> None:
    pair = {"prompt": "Q", "chosen": "A", "rejected": "B"}
    error = _fault_of(add, "\n".join(map(json.dumps, [pair, {"text": "T"}, {**pair, "rejected": "A"}, ROW, pair])))
    assert [fault.message.split(": ", 1)[0] for fault in error.faults] == ["row 2", "row 3", "row 4"]
    assert "row 2: is text, but the file's first row is preference" in error.message
    assert "row 3: rejected: is the same as chosen" in error.message


@pytest.mark.parametrize(
    ("row", "kind", "rows"),
    [
        ({"text": "T"}, "text", {"text": "T"}),
        ({"prompt": "Q", "chosen": "A", "rejected": "B"}, "preference", {
            "prompt": [{"role": "user", "content": "Q"}],
            "chosen": [{"role": "assistant", "content": "A"}], "rejected": [{"role": "assistant", "content": "B"}]}),
    ],
)  # fmt: skip
def test_a_dataset_knows_its_kind_and_source(
    add: Callable[..., Dataset], folder: DataFolder, row: dict[str, str], kind: str, rows: dict[str, object]
) -> None:
    dataset = add(f"{json.dumps(row)}\n" * 2, filename="a.jsonl")
    assert (dataset.kind, dataset.source, dataset.columns) == (kind, {"kind": "file", "filename": "a.jsonl"}, {})
    assert preview_rows(folder, dataset) == [rows] * 2
    assert preview_raw(folder, dataset, first=2) == [row]


def test_what_is_left_out_is_counted_and_named(add: Callable[..., Dataset], folder: DataFolder) -> None:
    turns = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]
    whole, cut = ({"conversations": each} for each in (turns, [{"from": "gpt", "value": "cut"}, *turns]))
    one = add("\n".join(map(json.dumps, [whole, whole, cut])), name="one")
    notice = "Opening answers that no user's turn precedes are left out of"
    assert one.source["notices"] == [f"{notice} 1 row: 3"]
    many = add("\n".join(map(json.dumps, [whole, *[cut] * 1234])), name="many")
    assert many.source["notices"] == [f"{notice} 1,234 rows: 2, 3, 4, 5, 6, …"]
    assert preview_rows(folder, many) == preview_rows(folder, one)[:1] * 10
    assert "notices" not in add(json.dumps(whole), name="whole").source


def test_a_parquet_file_is_registered(add: Callable[..., Dataset], folder: DataFolder, tmp_path: Path) -> None:
    content = write_parquet(tmp_path / "a.parquet", [{"text": f"T{n}"} for n in range(200)]).read_bytes()
    dataset = add(content, "a.parquet")
    assert (dataset.kind, dataset.rows, dataset.sha256) == ("text", 200, hashlib.sha256(content).hexdigest())
    assert preview_raw(folder, dataset, first=199) == preview_rows(folder, dataset, 199) == [
        {"text": "T198"}, {"text": "T199"},
    ]  # fmt: skip


def test_a_row_may_have_the_fields_of_another_format_too(add: Callable[..., Dataset]) -> None:
    assert add(f"{LINE}\n" + json.dumps({**ROW, "messages": None})).rows == 2


def test_an_answer_without_a_question_is_refused_by_row(add: Callable[..., Dataset]) -> None:
    turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    lines = [json.dumps({"messages": messages}) for messages in (turns, turns[1:])]
    error = _fault_of(add, "\n".join(lines))
    assert error.message == "file: row 2: messages[0]: is an answer that no user message precedes"


def test_mapped_columns_are_read_as_fields(session: Session, folder: DataFolder) -> None:
    content = b"question,answer,output\nQ,A,old\n"
    with Upload(folder, "a.csv") as upload:
        checked = upload.receive(io.BytesIO(content), 1000).check({"instruction": "question", "output": "answer"})
        dataset = upload.register(session, checked)
    assert dataset.format == "alpaca"
    assert dataset.columns == {"instruction": "question", "output": "answer"}
    assert [turn["content"] for turn in preview_rows(folder, dataset)[0]["messages"]] == ["Q", "A"]
    assert preview_raw(folder, dataset) == [{"question": "Q", "answer": "A", "output": "old"}]


def test_a_mapped_columns_format_goes_before_others_and_faults_name_the_column(folder: DataFolder) -> None:
    columns = {"prompt": "question", "completion": "output"}
    content = '{"instruction": "I", "output": "A", "question": "Q"}\n{"output": "A", "question": ""}\n'
    with Upload(folder, "a.jsonl") as upload:
        upload.receive(io.BytesIO(content.encode()), 1000)
        with pytest.raises(DatasetFormatError) as caught:
            upload.check(columns)
        assert caught.value.message == "file: row 2: question (as prompt): is empty"
        upload.source.write_text(content.splitlines()[0])
        assert upload.check(columns).format == "prompt_completion"
        upload.source.write_text('{"prompt": "Q", "chosen": "A", "no": {"from": "bot"}}')
        with pytest.raises(DatasetFormatError, match=r"row 1: no\.from \(as rejected\): is 'bot'; known roles"):
            upload.check({"rejected": "no"})
        upload.source.write_text('{"instruction": "I", "output": "A", "messages": [], "text": "T"}')
        assert upload.check({"input": "text"}).format == "alpaca"


def test_columns_that_do_not_make_a_format_are_refused(folder: DataFolder) -> None:
    with Upload(folder, "a.csv") as upload:
        upload.receive(io.BytesIO(b"question,answer\nQ,A\n"), 1000)
        with pytest.raises(UnknownFormat) as caught:
            upload.check({"prompt": "question"})
        assert caught.value.fields == ["question", "answer"]
        with pytest.raises(InvalidInput, match="column: the first row has no 'ask'"):
            upload.check({"prompt": "ask", "completion": "answer"})


def test_long_and_spaced_names_are_cut(add: Callable[..., Dataset]) -> None:
    assert add(LINES, name=" a \n b ").name == "a b"
    assert add(LINES, name="x" * 500).name == "x" * 120


def test_what_a_crash_left_under_the_next_id_is_replaced(add: Callable[..., Dataset], folder: DataFolder) -> None:
    left = folder.dataset(1)
    left.mkdir()
    (left / "old.txt").touch()
    dataset = add(LINES)
    assert dataset.id == 1
    assert sorted(path.name for path in left.iterdir()) == ["came.jsonl", "rows.index", "rows.jsonl", "source.jsonl"]


def test_a_transaction_that_fails_registers_nothing(database: Database, folder: DataFolder, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(LINES)

    def fail() -> None:
        with database.write() as session:
            add_file(session, folder, path)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with database.write() as session:
        assert session.exec(select(Dataset)).all() == []
        assert add_file(session, folder, path).rows == 3, "the same id's folder can be used again"
    shutil.rmtree(folder.dataset(1))


def test_datasets_are_found_by_name_then_id(add: Callable[..., Dataset], session: Session) -> None:
    first, second = add(LINES, name="2nd"), add(LINES, name="other")
    assert find_dataset(session, "2nd") == first
    assert find_dataset(session, "1") == first
    assert find_dataset(session, "2") == second
    assert find_dataset(session, "other") == second
    for reference in ("3", "9" * 30, "٣", "", "-1"):
        with pytest.raises(NotFound, match="There is no dataset") as caught:
            get_dataset(session, reference)
        assert caught.value.advice == "Registered: 2nd, other."
