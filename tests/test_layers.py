"""Web and worker stay apart: what each loads, seen in a fresh process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.live_server import environment_for

TRAINING = {"torch", "transformers", "peft", "accelerate", "bitsandbytes", "datasets", "safetensors", "numpy"}
LATE = {"duckdb"}  # loaded with the first Parquet file
WEB = {"fastapi", "starlette", "jinja2", "uvicorn"}

CREATE_APP = "from app.main import create_app; from app.core.settings import Settings; create_app(Settings())"
ASK = """
from fastapi.testclient import TestClient
from app.main import create_app
from app.core.settings import Settings

app = create_app(Settings())
with TestClient(app, base_url="http://127.0.0.1", headers={"Authorization": f"Bearer {app.state.token}"}) as client:
    for path in ("health", "gpu", "jobs", "models", "datasets", "datasets/demo/rows"):
        assert client.get(f"/api/v1/{path}").status_code == 200, path
"""
WORKER = "import worker.__main__, worker.loop"
SPEC = "import app.core.jobs.submit, app.core.first_run, app.core.doctor, app.core.tables"
CLIENT = "import app.cli"
OF_CHILD = "import worker.child, app.core.jobs.receipts, app.core.jobs.capabilities, app.core.jobs.spec"


def _loaded(code: str, home: Path) -> set[str]:
    """Top-level modules that are loaded once `code` has run."""
    program = f"{code}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, env=environment_for(home), capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


@pytest.mark.parametrize(
    ("code", "present", "absent"),
    [
        pytest.param(CREATE_APP, {"fastapi", "app"}, {*TRAINING, *LATE, "worker"}, id="creating the app"),
        pytest.param(ASK, {"fastapi", "app"}, {*TRAINING, *LATE, "worker"}, id="answering"),
        pytest.param(WORKER, {"worker", "app"}, {*TRAINING, *LATE, *WEB}, id="the worker"),
        pytest.param(SPEC, {"app"}, {*TRAINING, *LATE, *WEB, "worker"}, id="the kernel"),
        pytest.param(CLIENT, {"app", "httpx"}, {*TRAINING, *LATE, *WEB, "worker"}, id="the command"),
        pytest.param(OF_CHILD, {"worker", "app"}, {"sqlalchemy", *TRAINING}, id="what a child has of the kernel"),
    ],
)
def test_modules(code: str, present: set[str], absent: set[str], tmp_path: Path) -> None:
    loaded = _loaded(code, tmp_path / "home")
    assert present <= loaded, "nothing was loaded, so nothing was tested"
    assert loaded & absent == set()


def test_a_forbidden_module_would_be_seen(tmp_path: Path) -> None:
    assert "jinja2" in _loaded(f"{WORKER}; import jinja2", tmp_path / "home")
