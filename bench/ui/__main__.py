"""`make bench-ui`: the pages in Chromium on a database of 10,000 jobs and 10,000,000 metric rows.

Prints a table and one JSON line. The data folder is made once (about 0.6 GB) and kept for the next time.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.ui.live import measure_live
from bench.ui.long_run import measure_long_run
from bench.ui.pages import measure_pages, measure_server
from bench.ui.seed import ensure, revive
from tests.live_server import environment_for

_PARTS = ("server", "pages", "long", "live")


@contextmanager
def serve(home: Path) -> Iterator[str]:
    """`loradeck serve --no-worker` on a free port."""
    (home / "server.json").unlink(missing_ok=True)
    log = home.with_name(f"{home.name}.log").open("w")
    command = [sys.executable, "-m", "app.cli", "serve", "--no-worker"]
    process = subprocess.Popen(command, env={**environment_for(home), "LORADECK_AUTH": "off"}, stdout=log, stderr=log)
    try:
        while not (home / "server.json").exists():
            if process.poll() is not None:
                sys.exit(f"The server did not start; see {log.name}.")
            time.sleep(0.05)
        yield json.loads((home / "server.json").read_text())["url"]
    finally:
        process.terminate()
        process.wait(timeout=20)
        log.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=Path(tempfile.gettempdir()) / "loradeck-bench-ui")
    parser.add_argument("--parts", default=",".join(_PARTS), help="some of server, pages, long, live")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", type=int, default=120)
    given = parser.parse_args()
    long_job = ensure(given.home)
    revive(given.home)
    result: dict[str, Any] = {}
    with serve(given.home) as url:
        for part in given.parts.split(","):
            result[part] = {
                "server": lambda: measure_server(url, long_job, given.rounds),
                "pages": lambda: measure_pages(url, long_job),
                "long": lambda: measure_long_run(url, long_job),
                "live": lambda: measure_live(url, given.home, long_job, given.seconds),
            }[part]()
            _print(part, result[part])
    print(json.dumps(result))


def _print(part: str, found: dict[str, Any]) -> None:
    print(f"\n{part}")
    for name, value in found.items():
        told = ", ".join(f"{key} {each}" for key, each in value.items()) if isinstance(value, dict) else value
        print(f"  {name}: {told}", flush=True)


if __name__ == "__main__":
    main()
