"""Requests made up from the OpenAPI document, right and wrong ones: none may end in a server error.

The suite runs some hundred; `python -m tests.security.fuzz --cases 10000 --seed 1` runs more. A fault is shown with the
request that made it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import booleans
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation

from app.core.settings import Settings
from app.main import create_app
from tests.conftest import write_dataset

DATASET = "demo"  # one that is there: of what is made up, nearly all names nothing
ENDLESS = ("/events",)  # an answer that goes on; its own tests read it
_CLOCKS = ("app.api.checks.time", "app.api.previews.time")  # of what waits for a worker: there is none


def run(app: FastAPI, cases: int, seed_: int, without: tuple[str, ...] = ENDLESS) -> Counter[int]:
    """How often each status was answered, by operations whose path does not end with one of `without`.

    Raises: AssertionError that shows the request behind a server error.
    """
    token = {"Authorization": f"Bearer {app.state.token}"}
    schema = schemathesis.openapi.from_asgi("/api/v1/openapi.json", app, headers=token)
    operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    operations = [each for each in operations if not each.path.endswith(without)]
    statuses: Counter[int] = Counter()
    for operation in operations:
        _try(operation, token, max(1, cases // len(operations)), seed_, statuses)
    return statuses


def _try(operation: APIOperation, token: dict[str, str], cases: int, seed_: int, statuses: Counter[int]) -> None:
    @seed(seed_)
    @settings(
        max_examples=cases,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(), there=booleans())
    def attempt(case: schemathesis.Case, there: bool) -> None:
        if there and "reference" in (case.path_parameters or {}):
            case.path_parameters["reference"] = DATASET
        response = case.call(headers=token)
        statuses[response.status_code] += 1
        assert response.status_code < 500, f"{response.status_code} {response.text[:300]}\n{case.as_curl_command()}"

    attempt()


@contextmanager
def application(home: Path) -> Iterator[FastAPI]:
    """One with the demo's dataset and another, which waits for no worker."""
    app = create_app(
        Settings(home=home / "home", cache=home / "cache", local_roots=[home], allowed_hosts=["testserver"])
    )
    write_dataset(home / "rows.jsonl")
    hurried = SimpleNamespace(monotonic=count(0, 1000).__next__)  # each look finds that all patience is over
    with ExitStack() as patches:
        for clock in _CLOCKS:
            patches.enter_context(patch(clock, hurried))
        patches.enter_context(patch("app.datasets.uploading.NO_WORKER_SECONDS", 0.0))
        yield app
    app.state.database.engine.dispose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, application(Path(folder)) as app:
        statuses = run(app, asked.cases, asked.seed)
    took = time.monotonic() - began
    print(f"seed {asked.seed}: {sum(statuses.values()):,} requests in {took:.0f} s: {dict(sorted(statuses.items()))}")


if __name__ == "__main__":
    main()
