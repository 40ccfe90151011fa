"""What the product connects to: nothing but the hub, and the hub only where somebody named a repository of it.

Each of its processes writes down every connection and every look-up of a name beyond this machine; none works.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import run_dashboard
from tests.worker.tiny import save_tiny_model, write_rows

pytestmark = [pytest.mark.model]

SPEC = "base_model: tiny\ndataset: boxes\nr: 4\nmax_steps: 2\nmax_length: 64\n"
GUARD = """
import ipaddress, os, socket, sys
LOG = os.environ["EGRESS_LOG"]

def tell(*words):
    with open(LOG, "a") as file:
        file.write(" ".join(map(str, words)) + "\\n")

def ours(host):
    if host in (None, "", "localhost", b"localhost", socket.gethostname()):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified

def guard(event, args):
    if event in ("socket.connect", "socket.sendto") and isinstance(args[1], tuple) and not ours(args[1][0]):
        tell("connect", args[1][0])
        raise OSError(101, "the network is denied")
    if event == "socket.getaddrinfo" and not ours(args[0]):
        tell("look-up", args[0])
        raise OSError(101, "the network is denied")

sys.addaudithook(guard)
tell("watched", *sys.argv[:1], *(word for word in sys.orig_argv if word.startswith(("worker", "app."))))
"""


def test_the_product_connects_to_the_hub_alone_and_only_when_asked(tmp_path: Path) -> None:
    guard, log = tmp_path / "guard", tmp_path / "egress.log"
    guard.mkdir()
    (guard / "sitecustomize.py").write_text(GUARD)
    more = {"PYTHONPATH": str(guard), "EGRESS_LOG": str(log), "HF_HOME": str(tmp_path / "hf")}
    with run_dashboard(tmp_path / "home", tmp_path / "cache", **more) as dashboard:
        dashboard.command("datasets", "add", str(write_rows(tmp_path / "boxes.jsonl")), "--name", "boxes")
        dashboard.command("models", "add", str(save_tiny_model(tmp_path / "tiny")))
        (tmp_path / "spec.yaml").write_text(SPEC)
        job = str(dashboard.command("jobs", "submit", str(tmp_path / "spec.yaml"))["id"])
        assert dashboard.command("jobs", "wait", job)["status"] == "completed"
        dashboard.command("datasets", "check", "boxes", "--model", "tiny")
        assert dashboard.command("merge", job, "--wait")["status"] == "completed"
        assert dashboard.command("generate", job, "--prompt", "Hello", "--max-new-tokens", "2")["tokens"] >= 1
        dashboard.command("artifacts", "download", job, "merged", "-o", str(tmp_path / "merged.zip"))
        dashboard.command("backup", str(tmp_path / "backup.zip"))
        headers = {"Authorization": f"Bearer {dashboard.token}"}
        with httpx.Client(base_url=dashboard.url, headers=headers, timeout=60, trust_env=False) as pages:
            for path in ("/", "/jobs", f"/jobs/{job}", "/datasets", "/models", "/gpu", "/settings", "/playground"):
                assert pages.get(path).status_code == 200
        told = log.read_text().splitlines()
        assert {"worker", "worker.child", "app.cli"} <= {word for line in told for word in line.split()}
        assert [line for line in told if not line.startswith("watched")] == [], "something left this machine unasked"
        dashboard.command("models", "add", "nobody/nothing")
        importing = next(each for each in dashboard.command("jobs", "list") if each["kind"] == "import")
        assert dashboard.command("jobs", "wait", str(importing["id"]), ok=False)
    reached = {line for line in log.read_text().splitlines() if not line.startswith("watched")}
    assert reached == {"look-up huggingface.co"}


def test_the_guard_would_see_it(tmp_path: Path) -> None:
    """Else nothing was tested."""
    (tmp_path / "sitecustomize.py").write_text(GUARD)
    log = tmp_path / "log"
    program = "import httpx; httpx.get('https://evil.test/')"
    environment = {"PYTHONPATH": str(tmp_path), "EGRESS_LOG": str(log)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert "denied" in done.stderr
    assert "look-up evil.test" in log.read_text()
