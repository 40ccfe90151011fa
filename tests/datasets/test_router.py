"""Pages of datasets over HTTP."""

from __future__ import annotations

import json
from html import unescape
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.core.database import Database
from app.core.datasets.formats import FORMATS
from app.core.datasets.store import list_datasets
from app.core.paths import DataFolder
from app.core.settings import Settings
from tests.parquet import write_parquet

pytestmark = pytest.mark.usefixtures("data_lane")

GOOD = b'{"instruction": "Say <b>hi</b>", "input": "", "output": "</script><b>hi"}\n'
TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


def _upload(client: TestClient, filename: str, body: bytes, **data: str) -> tuple[int, str]:
    response = client.post("/datasets", files={"file": (filename, body)}, data=data)
    return response.status_code, unescape(response.text)


def _names(database: Database) -> list[str]:
    with database.read() as session:
        return [dataset.name for dataset in list_datasets(session)]


@pytest.mark.parametrize(
    ("filename", "body"),
    [
        ("one.jsonl", GOOD),
        ("one.json", b"[" + GOOD.strip() + b"]"),
        ("one.csv", b"prompt,completion\r\nhello,there\r\n"),
        ("one.jsonl", json.dumps({"messages": TURNS}).encode()),
    ],
)
def test_upload_registers_the_file_and_opens_its_preview(
    client: TestClient, database: Database, filename: str, body: bytes
) -> None:
    response = client.post("/datasets", files={"file": (filename, body)}, data={"name": ""}, follow_redirects=False)
    assert response.status_code == 303
    assert "one" in _names(database)
    page = client.get(response.headers["location"])
    assert page.status_code == 200
    assert "Rows 1 to 1" in page.text


def test_a_parquet_file_is_shown_and_a_damaged_one_refused(client: TestClient, tmp_path: Path) -> None:
    rows = [{"messages": TURNS, "n": n} for n in range(1, 31)]
    content = write_parquet(tmp_path / "a.parquet", rows).read_bytes()
    _, page = _upload(client, "a.parquet", content)
    assert "kind: messages" in page
    raw = client.get("/datasets/2?first=30").text.split("As it came")[1]
    assert json.dumps(TURNS, indent=2) in unescape(raw)
    assert "n: 30" in raw
    status, page = _upload(client, "b.parquet", content[:-9])
    assert status == 422
    assert "The Parquet file is damaged behind row 0" in page[page.index('id="errors-file"') :]


def test_preview_shows_rows_as_text(client: TestClient) -> None:
    _, page = _upload(client, "tags.jsonl", GOOD)
    raw = client.get("/datasets/2").text
    assert "Say <b>hi</b>" in page
    assert "Say &lt;b&gt;hi&lt;/b&gt;" in raw
    assert "</script><b>" not in raw


def test_a_text_is_shown_with_how_it_was_recognised(client: TestClient) -> None:
    _, page = _upload(client, "texts.csv", b"text\n<b>once</b> upon\n")
    assert '<p class="answer"><b>once</b> upon</p>' in page
    assert "kind: text, for <code>task: text</code>" in page
    assert "format: text, recognised by text" in page
    assert "from texts.csv" in page


def test_a_pair_is_shown_side_by_side_and_raw(client: TestClient) -> None:
    turn = {"from": "human", "value": "Q ☃"}
    row = {"conversations": [turn], "chosen": {"from": "gpt", "value": "<b>A"}, "rejected": "B"}
    _, page = _upload(client, "pairs.jsonl", json.dumps(row).encode())
    assert "kind: preference, for <code>task: dpo</code>" in page
    assert "recognised by conversations, chosen, rejected" in page
    shown, raw = page.split("As it came")
    prompt, chosen, rejected = (
        shown.index(text) for text in ('<p class="answer">Q ☃', ">Chosen</h3>", ">Rejected</h3>")
    )
    assert (
        prompt < chosen < shown.index('<p class="answer"><b>A</p>') < rejected < shown.index('<p class="answer">B</p>')
    )
    assert json.dumps([turn], ensure_ascii=False, indent=2) in raw
    assert "<b>A" not in client.get("/datasets/2").text, "what a row holds is no markup"


def test_a_dataset_of_unknown_source_is_shown(client: TestClient, database: Database) -> None:
    """One that was registered before sources were kept."""
    with database.write() as session:
        list_datasets(session)[0].source = {}
    assert "<span>from " not in client.get("/datasets/1").text


def test_what_was_left_out_is_said(client: TestClient) -> None:
    turns = [{"from": "gpt", "value": "cut"}, {"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]
    _, page = _upload(client, "cut.jsonl", json.dumps({"conversations": turns}).encode())
    assert "⚠ Opening answers that no user's turn precedes are left out of 1 row: 1" in page


def test_an_answer_of_several_turns_has_their_roles(client: TestClient) -> None:
    called = [{"role": "assistant", "content": "find()"}, {"role": "tool", "content": "5"}, TURNS[1]]
    _, page = _upload(client, "tools.jsonl", json.dumps({"prompt": "Q", "chosen": called, "rejected": "B"}).encode())
    chosen, rejected = page[page.index(">Chosen<") :].split(">Rejected<")
    assert [role in chosen for role in (">assistant<", ">tool<")] == [True, True]
    assert 'class="role"' not in rejected


def test_preview_goes_through_the_rows(client: TestClient) -> None:
    lines = [json.dumps({"prompt": f"p{n}", "completion": f"c{n}"}) for n in range(1, 13)]
    _upload(client, "long.jsonl", "\n".join(lines).encode())
    assert "?first=11" in client.get("/datasets/2").text
    second = client.get("/datasets/2?first=11").text
    assert "Rows 11 to 12 of 12" in second
    assert '<input id="from-row" name="first" type="number" min="1" max="12" value="11">' in second
    beyond = client.get("/datasets/2?first=99").text
    assert "There is no row 99" in beyond
    assert "Rows 99" not in beyond


@pytest.mark.parametrize(
    ("filename", "body", "message"),
    [
        ("a.jsonl", b"", "The dataset is empty"),
        ("a.jsonl", GOOD + b'{"instruction": "x", "output": ""}\n', "row 2: output: has no answer"),
        ("a.jsonl", GOOD + b"{broken\n", "row 2: is not valid JSON"),
        ("a.json", b"[1, 2]", "row 1: is not a JSON object"),
        ("a.jsonl", b"\x00\x01binary", "The file is not text"),
        ("a.jsonl", b"\xff\xfe\xfa", "not UTF-8"),
        ("a.exe", GOOD, "must end in .json"),
        ("a.jsonl", b'{"question": "x"}', "the first row has the fields 'question'"),
        (
            "a.jsonl",
            b'{"messages": [{"role": "assistant", "content": "a"}]}',
            "row 1: messages[0]: is an answer that no",
        ),
    ],
)
def test_unusable_file_is_refused_beside_its_field_and_leaves_nothing(
    client: TestClient, database: Database, folder: DataFolder, filename: str, body: bytes, message: str
) -> None:
    status, page = _upload(client, filename, body, name="kept")
    assert status == 422
    errors = page[page.index('id="errors-file"') :]
    assert message in errors[: errors.index("</ul>")]
    assert 'value="kept"' in page
    assert _names(database) == ["small"]
    assert list(folder.uploads.iterdir()) == []


def test_fields_of_an_unknown_format_are_offered_to_map(client: TestClient, database: Database) -> None:
    faq = b'{"question": "Q", "<b>answer": "A"}'
    page = client.post("/datasets", files={"file": ("faq.jsonl", faq)}).text
    assert "Map its columns below, or see Formats." in page
    assert '<option value="instruction=question">instruction</option>' in page
    assert '<option value="completion=&lt;b&gt;answer">completion</option>' in page
    mapped = {"column": ["prompt=question", "completion=<b>answer", ""]}
    again = client.post("/datasets", files={"file": ("faq.jsonl", b"[{}]")}, data=mapped).text
    assert '<option value="prompt=question" selected>prompt</option>' in again, "what was chosen stays chosen"
    assert "the first row has no" in unescape(again)
    shown = client.post("/datasets", files={"file": ("faq.jsonl", faq)}, data=mapped)
    assert shown.status_code == 200
    assert "format: prompt_completion, recognised by prompt, completion" in shown.text
    assert "completion is the column &lt;b&gt;answer" in shown.text
    assert _names(database) == ["faq", "small"]


def test_of_many_fields_some_are_offered(client: TestClient) -> None:
    row = {"x" * 300: "long", "": "empty"} | {f"c{n}": "" for n in range(100)}
    page = client.post("/datasets", files={"file": ("wide.jsonl", json.dumps(row).encode())}).text
    assert page.count('<select id="column-') == 40
    assert "xxx=" not in page


def test_known_formats_are_listed(client: TestClient) -> None:
    page = client.get("/datasets").text
    for name in FORMATS:
        assert f"<li>{name} (" in page


def test_taken_name_is_said_beside_the_name(client: TestClient, database: Database) -> None:
    status, page = _upload(client, "a.jsonl", GOOD, name="small")
    assert status == 422
    assert "is registered already" in page[page.index('id="errors-name"') :]
    status, page = _upload(client, "a.jsonl", GOOD, name="44")
    assert status == 422
    assert "is a number, as ids are" in page[page.index('id="errors-name"') :]
    assert _names(database) == ["small"]


def test_too_large_file_gets_413(client: TestClient, settings: Settings, folder: DataFolder) -> None:
    settings.max_upload_bytes = 10
    status, page = _upload(client, "a.jsonl", GOOD)
    assert status == 413
    assert "larger than the limit" in page
    assert list(folder.uploads.iterdir()) == []


def test_no_file_is_said(client: TestClient) -> None:
    response = client.post("/datasets", data={"name": "x"}, headers={"HX-Request": "true"})
    assert response.status_code == 422
    assert response.text.lstrip().startswith('<form id="upload-form"')
    assert "Choose a file first." in response.text


def test_unknown_dataset_gets_404(client: TestClient) -> None:
    assert client.get("/datasets/77").status_code == 404


def test_file_name_is_never_a_path(client: TestClient, database: Database, tmp_path: Path) -> None:
    assert _upload(client, "../../escape.jsonl", GOOD)[0] == 200
    assert "escape" in _names(database)
    assert not list(tmp_path.rglob("escape*"))
