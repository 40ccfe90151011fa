"""A million rows through the dashboard's page: how soon the first problem is seen, and what any process takes.

`python -m bench.first_problem [--rows N]`: writes a JSONL file of that many rows, some of which cannot be used, uploads
it by the form in Chromium, and waits until the page shows the first problem; a little later it cancels the import.
Prints a table and one JSON line. Seconds to the first problem count from when the file is stored: the transfer is told
apart, as is the processor time that the web process takes for it. Memory is each process's peak of resident bytes.
"""

from __future__ import annotations

import argparse
import http
import json
import shutil
import sqlite3
import subprocess
import tempfile
import threading
import time
from contextlib import closing, suppress
from pathlib import Path

import psutil
from playwright.sync_api import Page, sync_playwright

from bench.startup_memory import Figures, free_port, get, running, used_cpu_seconds

DEADLINE_SECONDS = 240.0
READ_ON_SECONDS = 5.0  # of the check, before it is cancelled
FLAGS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-gpu"]
BAD_ROWS = {5, 78, 500_001}
_LOOK_SECONDS = 0.05


def write_rows(path: Path, rows: int) -> None:
    """Alpaca rows; those of BAD_ROWS have no answer."""
    words = " ".join(f"word{n}" for n in range(47))
    with path.open("w", encoding="utf-8") as file:
        for number in range(1, rows + 1):
            output = "" if number in BAD_ROWS else f"Answer {number}: {words} {words}"
            file.write(json.dumps({"instruction": f"{number}: {words}", "input": "", "output": output}) + "\n")


class Peaks:
    """The largest resident set of each descendant of a process, by what it is, looked at all the time."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.bytes: dict[str, int] = {}
        self._process = psutil.Process(process.pid)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Peaks:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(_LOOK_SECONDS):
            for process in [self._process, *self._process.children(recursive=True)]:
                with suppress(psutil.Error, IndexError):
                    self._note(process)

    def _note(self, process: psutil.Process) -> None:
        what = " ".join(process.cmdline())
        name = "child" if "worker.child" in what else "worker" if "-m worker" in what else "web"
        self.bytes[name] = max(self.bytes.get(name, 0), process.memory_info().rss)


def measure(home: Path, file: Path) -> Figures:
    """One upload on a fresh data folder; see the module."""
    port = free_port()
    with running(home, "serve", "--port", str(port)) as process, Peaks(process) as peaks:
        while get(port, "/api/v1/health") != http.HTTPStatus.OK:
            time.sleep(0.1)
        _wait_for(home, "SELECT 1 FROM job WHERE status = 'completed'")  # the demo model's import
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
            figures = _upload(browser.new_page(base_url=f"http://127.0.0.1:{port}"), home, file, process.pid)
            browser.close()
    return {**figures, **{f"{name}_peak_mb": size / 1e6 for name, size in peaks.bytes.items()}}


def _upload(page: Page, home: Path, file: Path, web: int) -> Figures:
    page.goto("/datasets")
    page.set_input_files("#field-file", file)
    cpu, begun = used_cpu_seconds(web), time.time()
    page.click("#upload-form button[type=submit]")
    page.locator(".field-errors li").first.wait_for(timeout=1000 * DEADLINE_SECONDS)
    seen, cpu = time.time(), used_cpu_seconds(web) - cpu
    (stored,) = _wait_for(home, "SELECT max(created_at) FROM job")
    page.wait_for_timeout(1000 * READ_ON_SECONDS)
    asked = time.time()
    page.click("text=Cancel")
    _wait_for(home, "SELECT 1 FROM job WHERE status = 'cancelled'")
    return {
        "transfer_seconds": stored - begun,
        "first_problem_seconds": seen - stored,
        "web_cpu_seconds": cpu,
        "cancel_seconds": time.time() - asked,
    }


def _wait_for(home: Path, query: str) -> tuple[float, ...]:
    """The first row that the query finds."""
    give_up_at = time.monotonic() + DEADLINE_SECONDS
    with closing(sqlite3.connect(home / "loradeck.db")) as database:
        while (row := database.execute(query).fetchone()) is None:
            if time.monotonic() > give_up_at:
                raise SystemExit(f"Nothing is found by: {query}; see {home / 'bench.log'}.")
            time.sleep(0.02)
    found: tuple[float, ...] = row
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=1_000_000)
    with tempfile.TemporaryDirectory() as folder:
        home, file = Path(folder) / "home", Path(folder) / "rows.jsonl"
        home.mkdir()
        write_rows(file, parser.parse_args().rows)
        print(f"{file.stat().st_size / 1e9:.2f} GB")
        figures = measure(home, file)
    for name, value in figures.items():
        print(f"{name:<24} {value:10.2f}")
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
