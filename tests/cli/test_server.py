"""`loradeck serve` and `loradeck doctor`: what they refuse, what they leave behind, and how they end."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.cli.conftest import Command
from tests.live_server import Served, environment_for


def test_server_json_is_its_owners_alone(server: Served) -> None:
    path = server.home / "server.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert server.process is not None
    assert json.loads(path.read_text()) == {"url": server.url, "token": server.token, "pid": server.process.pid}
    for name in ("api_token", "loradeck.db"):
        assert stat.S_IMODE((server.home / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(server.home.stat().st_mode) == 0o700


def test_health_needs_no_token(server: Served) -> None:
    assert httpx.get(f"{server.url}/api/v1/health", trust_env=False).json()["status"] == "ok"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "box.lan"])
def test_an_open_bind_is_refused(loradeck: Command, host: str) -> None:
    refused = loradeck("serve", "--host", host)
    assert refused.code == 2
    assert refused.err.startswith(f"error: host: {host} would open the dashboard to the network")
    assert "LORADECK_OPEN_BIND" in refused.err


def test_an_open_bind_by_setting_is_refused_too(loradeck: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORADECK_HOST", "0.0.0.0")
    assert "error: host: 0.0.0.0" in loradeck("serve").err


def test_a_taken_port_is_named_and_the_running_server_stays(loradeck: Command, server: Served) -> None:
    before = (server.home / "server.json").read_text()
    port = server.url.rpartition(":")[2]
    refused = loradeck("serve", "--port", port, "--no-worker")
    assert refused.code == 2
    assert refused.err.startswith(f"error: port: Cannot bind to 127.0.0.1:{port}: Address already in use")
    assert (server.home / "server.json").read_text() == before


def test_an_open_bind_that_is_asked_for_gets_as_far_as_the_port(
    loradeck: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORADECK_OPEN_BIND", "true")
    with socket.create_server(("0.0.0.0", 0)) as taken:
        refused = loradeck("serve", "--host", "0.0.0.0", "--port", taken.getsockname()[1])
    assert "error: port: Cannot bind to 0.0.0.0" in refused.err


def test_a_killed_server_can_be_started_again_and_ends_clean(tmp_path: Path) -> None:
    """Under an open umask, in a folder with a stale server.json; Ctrl+C ends it with 0 and nothing is left."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "server.json").write_text(json.dumps({"url": "http://127.0.0.1:9", "token": "old", "pid": 1}))
    command = [sys.executable, "-m", "app.cli", "serve", "--no-worker", "--port", "0"]
    process = subprocess.Popen(
        command,
        env=environment_for(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: os.umask(0),
    )
    assert process.stdout is not None
    with process.stdout:
        line = process.stdout.readline()
        served = json.loads((home / "server.json").read_text())
        assert served["url"] in line
        assert served["pid"] == process.pid
        modes = {path: stat.S_IMODE(path.stat().st_mode) for path in home.rglob("*")}
        assert {path.name for path, mode in modes.items() if mode & 0o077} == set()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0
    assert not (home / "server.json").exists()


def test_doctor(loradeck: Command) -> None:
    result = loradeck("doctor", "--json")
    assert result.json.keys() == {"ok", "checks"}
    assert all(check.keys() == {"name", "ok", "message"} for check in result.json["checks"])
    assert {"sqlite", "data folder", "database", "disk", "gpu"} <= {check["name"] for check in result.json["checks"]}
    assert result.json["ok"] is all(check["ok"] for check in result.json["checks"])
    assert result.code == (0 if result.json["ok"] else 1)
    for check in result.json["checks"]:
        assert check["ok"] or check["name"] == "disk", check["message"]


def test_doctor_fails_on_a_folder_that_others_can_read(
    loradeck: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    monkeypatch.setenv("LORADECK_HOME", str(tmp_path))
    result = loradeck("doctor", "--json")
    assert (result.code, result.json["ok"]) == (1, False)
    assert "FAIL  data folder: " in loradeck("doctor").out


def test_the_installed_command_has_the_same_exit_codes(server: Served) -> None:
    script = Path(sys.executable).with_name("loradeck")
    for arguments, code in ((["jobs", "list", "--json"], 0), (["jobs", "show", "9999", "--json"], 2)):
        run = subprocess.run([script, *arguments], env=server.environment, capture_output=True, text=True, timeout=60)
        assert run.returncode == code, run.stderr
        document = json.loads(run.stdout)
        assert isinstance(document, list) if code == 0 else set(document) == {"error"}


def test_a_second_dashboard_on_the_folder_is_refused_and_the_first_stays(loradeck: Command, server: Served) -> None:
    before = (server.home / "server.json").read_text()
    refused = loradeck("serve", "--port", 0, "--no-worker")
    assert refused.code == 1
    assert f"A dashboard already runs on {server.home}: {server.url}" in refused.err
    assert (server.home / "server.json").read_text() == before
    assert loradeck("jobs", "list", "--json").code == 0
