"""`loradeck users`, `loradeck tokens`, and what `loradeck serve` says about accounts."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import time
from pathlib import Path

import httpx

from tests.live_server import environment_for, serve_process

PASSWORD = "correct horse battery"


def _run(home: Path, *arguments: str, typed: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app.cli", *arguments]
    environment = {**environment_for(home), "LORADECK_AUTH": "accounts", **settings}
    return subprocess.run(command, env=environment, input=typed, capture_output=True, text=True, timeout=120)


def test_users_and_tokens_from_the_command_line(tmp_path: Path) -> None:
    home = tmp_path / "home"
    added = _run(home, "users", "add", "Ann", "--role", "admin", "--json", typed=f"{PASSWORD}\n")
    assert added.returncode == 0, added.stderr
    assert json.loads(added.stdout)["name"] == "ann"
    assert PASSWORD not in added.stdout + added.stderr
    assert _run(home, "users", "add", "ann", typed=f"{PASSWORD}\n").returncode == 1
    short = _run(home, "users", "add", "bob", typed="short\n")
    assert (short.returncode, "10 characters" in short.stderr) == (2, True)
    assert _run(home, "users", "remove", "ann").returncode == 1, "the only admin"
    token = json.loads(_run(home, "tokens", "add", "ci", "--user", "ann", "--scope", "write", "--json").stdout)
    assert token["token"].startswith(token["prefix"])
    listed = _run(home, "tokens", "list")
    assert token["prefix"] in listed.stdout
    assert token["token"] not in listed.stdout
    with serve_process(home, LORADECK_AUTH="accounts") as server:
        headers = {"Authorization": f"Bearer {token['token']}"}
        assert httpx.get(f"{server.url}/api/v1/jobs", headers=headers).status_code == 200
        assert httpx.post(f"{server.url}/api/v1/queue/pause", headers=headers).status_code == 200
        assert _run(home, "tokens", "revoke", str(token["id"])).returncode == 0
        assert _run(home, "jobs", "list").returncode == 0, "server.json has the installation's own token"
    told = home.with_name("home.log").read_text()
    assert "/setup?token=" not in told, "there is an account already"


def _printed_link(log: Path) -> str:
    """The server may answer a moment before it has printed where it is."""
    deadline = time.monotonic() + 20
    while "/setup?token=" not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    return next(word for word in log.read_text().split() if "/setup?token=" in word)


def test_the_first_start_prints_the_link_that_makes_the_first_account(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with serve_process(home, LORADECK_AUTH="accounts") as server:
        link = _printed_link(home.with_name("home.log"))
        assert link.startswith(server.url)
        assert stat.S_IMODE((home / "setup_token").stat().st_mode) == 0o600
        token = link.partition("token=")[2]
        with httpx.Client(base_url=server.url, headers={"Sec-Fetch-Site": "same-origin"}) as browser:
            assert browser.get("/jobs").headers["location"] == "/login?next=/jobs"
            assert browser.get(link).status_code == 200
            made = browser.post("/setup", data={"token": token, "name": "ann", "password": PASSWORD})
            assert made.headers["location"] == "/"
            assert "Queue" in browser.get("/").text
            assert browser.get(link).status_code == 404
    assert not (home / "setup_token").exists()


def test_an_open_bind_needs_an_account_or_to_be_said_twice(tmp_path: Path) -> None:
    home = tmp_path / "home"
    refused = _run(home, "serve", "--host", "0.0.0.0", "--no-worker")
    assert refused.returncode == 2
    assert "loradeck users add NAME --role admin" in refused.stderr
    off = _run(home, "serve", "--host", "0.0.0.0", "--no-worker", LORADECK_AUTH="off")
    assert off.returncode == 2
    assert "LORADECK_OPEN_BIND" in off.stderr
    assert _run(home, "users", "add", "ann", "--role", "admin", typed=f"{PASSWORD}\n").returncode == 0
    with serve_process(home, "--host", "0.0.0.0", LORADECK_AUTH="accounts") as server:
        assert httpx.get(f"{server.url}/jobs").headers["location"] == "/login?next=/jobs"
