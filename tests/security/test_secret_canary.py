"""A canary in the place of the hub's token: after every flow the file of the store holds it, and nothing else does.

What leaked tokens elsewhere: logs of requests (Jupyter CVE-2022-24757), arguments that are pickled with a training
(kohya_ss #3603), command lines.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Dashboard, run_dashboard
from tests.worker.tiny import save_tiny_model, write_rows
from tests.worker.upload_hub import WRITER as CANARY
from tests.worker.upload_hub import serve_upload_hub

pytestmark = [pytest.mark.model]

SPEC = "base_model: tiny\ndataset: boxes\nr: 4\nmax_steps: 2\nmax_length: 64\nsave_steps: 1\n"


@contextmanager
def _watching_processes(seen: set[bytes]) -> Iterator[None]:
    """Every command line and environment that this user can read, many times a second."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.05):
            for name in ("cmdline", "environ"):
                for path in Path("/proc").glob(f"[0-9]*/{name}"):
                    try:
                        seen.add(path.read_bytes())
                    except OSError:
                        continue  # it has ended, or is another user's

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


class _Flows:
    """Everything that a token might slip out of, by command, API and page. `said` is all that was answered."""

    def __init__(self, dashboard: Dashboard, folder: Path) -> None:
        self._dashboard, self._folder = dashboard, folder
        self.said: list[bytes] = []
        self._api = dashboard.api()
        self._api.event_hooks["response"] = [lambda response: self.said.append(response.read())]

    def store_token(self) -> None:
        command = [sys.executable, "-m", "app.cli", "secrets", "set", "hf_token"]
        environment = self._dashboard.environment
        done = subprocess.run(command, env=environment, input=CANARY.encode(), capture_output=True, check=True)
        self.said += [done.stdout, done.stderr]

    def command(self, *arguments: str, ok: bool = True) -> Any:
        answer = self._dashboard.command(*arguments, ok=ok)
        self.said.append(json.dumps(answer).encode())
        return answer

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self._api.request(method, path, **options)

    def look_at_pages(self, *paths: str) -> None:
        with httpx.Client(base_url=self._dashboard.url, headers=self._api.headers, timeout=60) as pages:
            self.said += [pages.get(path).content for path in paths]

    def close(self) -> None:
        self._api.close()

    def run(self) -> None:
        home, folder = self._dashboard.home, self._folder
        self.command("models", "add", "nobody/nothing")
        self.command("datasets", "add", str(write_rows(folder / "boxes.jsonl")), "--name", "boxes")
        self.command("models", "add", str(save_tiny_model(folder / "tiny")))
        self.ask("POST", "/datasets/hub", json={"hub_id": "nobody/nothing"})
        (folder / "spec.yaml").write_text(SPEC)
        job = str(self.command("jobs", "submit", str(folder / "spec.yaml"))["id"])
        assert self.command("jobs", "wait", job)["status"] == "completed"
        pushed = self.command("artifacts", "push", job, "adapter", "--repo", "me/mine", "--wait")
        assert pushed["summary"]["commit"]
        self.command("artifacts", "push", job, "adapter", "--repo", "stranger/mine", "--wait", ok=False)
        self.command("artifacts", "download", job, "adapter", "-o", str(folder / "adapter.zip"))
        self.command("jobs", "logs", job, ok=False)
        in_the_way = home / "secrets" / "hf_token.tmp"
        in_the_way.mkdir()
        assert self.ask("PUT", "/secrets/hf_token", json={"value": CANARY}).status_code == 500
        in_the_way.rmdir()
        self.command("secrets", "list")
        self.ask("GET", f"/models/{CANARY[:-4]}0000")
        self.ask("GET", "/events", params={"job": job, "after": 0})
        self.look_at_pages("/", "/settings", "/models", "/datasets", f"/jobs/{job}", f"/jobs/{pushed['id']}", "/jobs")
        self.command("backup", str(folder / "backup.zip"), "--with-files")


def test_only_the_store_ever_holds_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    seen: set[bytes] = set()
    with serve_upload_hub() as hub:
        more = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "LORADECK_LOG_LEVEL": "DEBUG"}
        with run_dashboard(tmp_path / "home", tmp_path / "cache", **more) as dashboard, _watching_processes(seen):
            flows = _Flows(dashboard, tmp_path)
            flows.store_token()
            flows.run()
            flows.close()
        assert CANARY in hub.tokens, "no job was given the token, so nothing was tested"
    canary = CANARY.encode()
    store = tmp_path / "home" / "secrets" / "hf_token"
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path for path in files if canary in path.read_bytes()} == {store}
    zips = [path for path in files if path.suffix == ".zip"]
    assert {path.name for path in zips} >= {"adapter.zip", "backup.zip"}
    for path in zips:
        with zipfile.ZipFile(path) as bundle:
            assert [name for name in bundle.namelist() if canary in bundle.read(name)] == []
            assert not [name for name in bundle.namelist() if "secrets" in name]
    assert len(flows.said) > 20
    assert [said for said in flows.said if canary in said] == []
    assert [told for told in seen if canary in told] == []
    assert any(b"worker.child" in told for told in seen), "no child was seen, so nothing was tested"
