"""The whole dashboard as a user starts it: `loradeck serve` with its worker, on an empty data folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, sync_playwright

CHROMIUM_FLAGS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-gpu"]
START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A running dashboard: its address, its token, and the command on it."""

    home: Path
    url: str
    token: str
    environment: dict[str, str]

    def command(self, *arguments: str, ok: bool = True) -> Any:
        """Run `loradeck … --json`; returns the JSON document."""
        run = subprocess.run(
            [sys.executable, "-m", "app.cli", *arguments, "--json"],
            env=self.environment,
            capture_output=True,
            text=True,
        )
        assert (run.returncode == 0) is ok, run.stderr or run.stdout
        return json.loads(run.stdout) if run.stdout else run.stderr

    def api(self) -> httpx.Client:
        """The JSON API with the token."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=f"{self.url}/api/v1", headers=headers, trust_env=False, timeout=60)


@pytest.fixture(scope="session")
def converted_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of converted models: the user's own, where the demo model may be converted already."""
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return home / "loradeck" if (home / "loradeck").is_dir() else tmp_path_factory.mktemp("cache")


@contextmanager
def run_dashboard(home: Path, cache: Path, **more: str) -> Iterator[Dashboard]:
    """`loradeck serve` on a free port, with its worker; ended by SIGTERM, and seen to end cleanly."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LORADECK_")}
    environment = {
        **kept,
        "LORADECK_HOME": str(home),
        "LORADECK_CACHE": str(cache),
        "LORADECK_PORT": "0",
        "LORADECK_AUTH": "off",
        "LORADECK_LOCAL_ROOTS": json.dumps([str(home.parent)]),
        **more,
    }
    log = home.parent / "serve.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "serve"], env=environment, stdout=output, stderr=output
        )
    try:
        server = _wait_for_server(home, process, log)
        yield Dashboard(home, server["url"], server["token"], environment)
    finally:
        process.terminate()
        code = process.wait(timeout=40)
    assert code == 0, log.read_text()
    assert not (home / "server.json").exists()


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory, converted_models: Path) -> Iterator[Dashboard]:
    """One dashboard for a module's tests."""
    with run_dashboard(tmp_path_factory.mktemp("dashboard") / "home", converted_models) as dashboard:
        yield dashboard


def _wait_for_server(home: Path, process: subprocess.Popen[bytes], log: Path) -> dict[str, Any]:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if (home / "server.json").exists():
            return json.loads((home / "server.json").read_text())
        time.sleep(0.1)
    raise AssertionError(f"the dashboard did not start: {log.read_text()}")


@contextmanager
def open_page(dashboard: Dashboard) -> Iterator[Page]:
    """A page in a real Chromium; any script error fails the test."""
    faults: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM_FLAGS)
        page = browser.new_page(base_url=dashboard.url, viewport={"width": 1280, "height": 900})
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.set_default_timeout(30_000)
        yield page
        browser.close()
    assert faults == []


@pytest.fixture
def page(dashboard: Dashboard) -> Iterator[Page]:
    """A page on the module's dashboard."""
    with open_page(dashboard) as page:
        yield page
