"""Names, paths and files from outside, at the real application: rows 15 to 31 that are not tested beside their code."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.core.settings import Settings
from tests.conftest import write_dataset
from tests.security.policy_table import routes

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = (
    "..%2f..%2f..%2f..%2fetc%2fpasswd",
    "%252e%252e%252fetc%252fpasswd",
    "%2fetc%2fpasswd",
    "..%5c..%5cetc",
    "1%00.json",
    "1%23",
    "-1",
    "99999999999999999999999",
    "%ff%fe",
)


@pytest.mark.parametrize("value", HOSTILE)
def test_row_15_no_path_parameter_leads_out_mlflow_cve_2026_2614(app: FastAPI, bearer: TestClient, value: str) -> None:
    """Also Jupyter CVE-2026-5422. Every parameter of every route that reads: refused, nothing of the file is told."""
    asked = 0
    for name, method, path in routes(app):
        if "{" not in path or method != "GET" or name in ("static", "stream_events", "api_events"):
            continue
        parts = [value if part.startswith("{") else part for part in path.split("/")]
        response = bearer.get("/".join(parts), headers={"Accept": "*/*"})
        assert response.status_code in (400, 404, 409, 422), (name, response.status_code)
        assert "root:" not in response.text
        asked += 1
    assert asked > 25


@pytest.mark.parametrize("value", HOSTILE)
def test_row_15_nor_does_one_that_changes_something(app: FastAPI, bearer: TestClient, value: str) -> None:
    for name, method, path in routes(app):
        if "{" not in path or method in ("GET", "HEAD"):
            continue
        parts = [value if part.startswith("{") else part for part in path.split("/")]
        response = bearer.request(method, "/".join(parts), json={} if path.startswith("/api/") else None)
        assert response.status_code in (303, 400, 403, 404, 409, 422), (name, response.status_code)


def test_row_15_static_files_are_known_names_only(anonymous: TestClient) -> None:
    for name in ("..%2fapp%2fmain.py", "%2e%2e/app/main.py", "vendor/..%2f..%2fpyproject.toml", "%2fetc%2fpasswd"):
        assert anonymous.get(f"/static/{name}").status_code in (400, 404)


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "/etc", "/proc/self/environ", "file:///etc/passwd", "../../etc", "~root"]
)
def test_row_17_a_path_of_the_server_is_no_model_h2o_cve_2023_6038(bearer: TestClient, path: str) -> None:
    response = bearer.post("/api/v1/models", json={"path": path})
    assert response.status_code == 422
    assert "root:" not in response.text


def test_row_17_a_sibling_whose_name_begins_like_a_root_is_outside(settings: Settings, bearer: TestClient) -> None:
    sibling = settings.local_roots[0].with_name("models-of-others")
    sibling.mkdir()
    (sibling / "config.json").write_text("{}")
    assert bearer.post("/api/v1/models", json={"path": str(sibling)}).status_code == 422


@pytest.mark.parametrize("name", ["page.html", "picture.svg", "x.php", "a.jsonl.html"])
def test_row_19_an_active_file_is_no_dataset_open_webui_cve_2026_45315(bearer: TestClient, name: str) -> None:
    content = b"<script>alert(1)</script>"
    response = bearer.post("/api/v1/datasets", files={"file": (name, content)})
    assert response.status_code == 422
    assert response.headers["x-content-type-options"] == "nosniff"


def test_row_25_data_is_its_owners_under_any_umask_mlflow_cve_2026_4137(tmp_path: Path) -> None:
    home = tmp_path / "home"
    program = (
        "import os; os.umask(0); from pathlib import Path; from app.core.settings import Settings; "
        f"from app.main import create_app; app = create_app(Settings(home=Path({str(home)!r}), auth='accounts')); "
        "from app.core.accounts.setup import get_setup_token; get_setup_token(app.state.folder)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
    modes = {path.relative_to(home): path.stat().st_mode & 0o777 for path in [home, *home.rglob("*")]}
    assert modes[Path(".")] == 0o700
    assert {mode for path, mode in modes.items() if (home / path).is_dir()} == {0o700}
    assert all(modes[Path(name)] == 0o600 for name in ("api_token", "setup_token", "loradeck.db"))
    assert all(mode & 0o077 == 0 for mode in modes.values()), modes


def test_row_26_what_is_read_into_memory_is_small(app: FastAPI, bearer: TestClient) -> None:
    """A request without a file: its limit is not that of uploads."""
    much = "x" * (5 * 1024**2)
    answers = [
        bearer.post("/api/v1/jobs", json={"yaml": much}),
        bearer.post("/api/v1/models", json={"path": much}),
        bearer.post("/models", data={"path": much}, headers={"Sec-Fetch-Site": "same-origin"}),
        bearer.post("/jobs", data={"base_model": much}, headers={"Sec-Fetch-Site": "same-origin"}),
    ]
    assert [answer.status_code for answer in answers] == [413, 413, 413, 413]


def test_row_26_an_upload_has_its_own_limit(bearer: TestClient) -> None:
    rows = b'{"text": "' + b"x" * 1000 + b'"}\n'
    response = bearer.post("/api/v1/datasets", files={"file": ("rows.jsonl", rows * 6000)})
    assert response.status_code in (201, 202)


def test_row_28_pyarrow_is_not_there_cve_2023_47248() -> None:
    """DuckDB reads Parquet, in a child."""
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8").lower()
    assert "pyarrow" not in pinned
    assert "datasets==" not in pinned


def test_row_29_what_is_compressed_is_not_unpacked(bearer: TestClient, tmp_path: Path) -> None:
    """A gzip of a gigabyte of zeros is a megabyte; it is refused by its first bytes."""
    plain = write_dataset(tmp_path / "rows.jsonl").read_bytes()
    for name in ("rows.jsonl.gz", "rows.jsonl"):
        response = bearer.post("/api/v1/datasets", files={"file": (name, gzip.compress(plain))})
        assert response.status_code in (202, 422)
        if response.status_code == 202:
            assert response.json()["status"] == "importing", "a child looks at it"


def test_row_39_no_shell_anywhere_llama_factory_cve_2024_52803(bearer: TestClient, settings: Settings) -> None:
    spec = {"base_model": "x", "dataset": "y", "output_dir": "x;touch p"}
    error = bearer.post("/api/v1/jobs", json={"spec": spec}).json()["error"]
    assert "output_dir" in {fault["field"] for fault in error["faults"]}
    assert not list(settings.home.rglob("p"))
    for folder in ("app", "worker"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert "shell=True" not in text, path
            assert "os.system" not in text, path


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:1/x", "http://169.254.169.254/latest", "http://[::ffff:127.0.0.1]/", "https://evil.test/model"],
)
def test_row_41_no_field_takes_an_address_mlflow_cve_2026_64849(bearer: TestClient, address: str) -> None:
    """Nothing is fetched from an address that a user types: a model or dataset of the hub is named by its id."""
    answers = [
        bearer.post("/api/v1/models", json={"path": address}),
        bearer.post("/api/v1/datasets/hub", json={"hub_id": address}),
        bearer.post("/api/v1/jobs", json={"spec": {"base_model": address, "dataset": address}}),
    ]
    assert [answer.status_code for answer in answers] == [422, 422, 422]
