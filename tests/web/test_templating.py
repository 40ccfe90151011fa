"""Filters, escaping and the partial-or-page helpers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import Response
from fastapi.testclient import TestClient
from jinja2 import UndefinedError
from markupsafe import Markup

from app.web.links import Links
from app.web.templating import (
    create_templates,
    format_bytes,
    format_datetime,
    format_duration,
    format_number,
    redirect,
    render,
    wants_partial,
)


class _NoAssets:
    def url(self, name: str) -> str:
        return f"/static/{name}"


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    app = FastAPI()
    app.state.templates = create_templates(tmp_path, _NoAssets(), version="1.2")  # type: ignore[arg-type]
    return app


def _serve(app: FastAPI, tmp_path: Path, source: str, **context: Any) -> str:
    (tmp_path / "page.html").write_text(source)

    @app.get("/jobs/{job_id}")
    def show_job(request: Request, job_id: int) -> Response:
        return render(request, "page.html", {"job_id": job_id, **context})

    app.state.links = Links(app.router.routes)
    return TestClient(app).get("/jobs/7").text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "n/a"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (98 * 2**20, "98.0 MiB"),
        (12.5 * 2**30, "12.5 GiB"),
    ],
)
def test_bytes_are_shown_in_binary_units(value: float | None, text: str) -> None:
    assert format_bytes(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "n/a"), (0.4, "0s"), (59.6, "1m 00s"), (1085, "18m 05s"), (7380, "2h 03m"), (-1, "0s")]
)
def test_durations_are_shown_in_two_units(value: float | None, text: str) -> None:
    assert format_duration(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "n/a"), (1234567, "1,234,567"), (1.02149, "1.021"), (0.0002, "0.0002"), (3210.4, "3,210"), (1e-5, "1e-05")],
)
def test_numbers_are_shown_with_four_figures(value: float | None, text: str) -> None:
    assert format_number(value) == text


def test_missing_reading_is_not_available_rather_than_zero() -> None:
    assert {format_bytes(None), format_duration(None), format_number(None), format_datetime(None)} == {"n/a"}


def test_times_are_utc_and_machine_readable() -> None:
    shown = format_datetime(0)
    assert isinstance(shown, Markup)
    assert shown == '<time datetime="1970-01-01T00:00:00+00:00">1970-01-01 00:00 UTC</time>'


def test_values_are_escaped(app: FastAPI, tmp_path: Path) -> None:
    assert _serve(app, tmp_path, "<b>{{ name }}</b>", name="<img src=x>") == "<b>&lt;img src=x&gt;</b>"


def test_json_cannot_end_its_script_element(app: FastAPI, tmp_path: Path) -> None:
    text = _serve(app, tmp_path, "{{ name | tojson }}", name={"log": "</script><!-- & '"})
    assert not set(text) & set("<>&'")
    assert json.loads(text) == {"log": "</script><!-- & '"}


def test_unknown_name_is_an_error(app: FastAPI, tmp_path: Path) -> None:
    with pytest.raises(UndefinedError, match="nothing"):
        _serve(app, tmp_path, "{{ nothing }}")


def test_urls_are_paths_and_globals_are_seen(app: FastAPI, tmp_path: Path) -> None:
    text = _serve(app, tmp_path, "{{ url_for('show_job', job_id=job_id) }} {{ asset('app.css') }} {{ version }}")
    assert text == "/jobs/7 /static/app.css 1.2"


@pytest.mark.parametrize(
    ("headers", "partial"),
    [
        ({}, False),
        ({"HX-Request": "true"}, True),
        ({"HX-Request": "true", "HX-History-Restore-Request": "true"}, False),
    ],
)
def test_htmx_gets_partials_but_restores_pages(app: FastAPI, headers: dict[str, str], partial: bool) -> None:
    @app.get("/x")
    def show(request: Request) -> dict[str, bool]:
        return {"partial": wants_partial(request)}

    assert TestClient(app).get("/x", headers=headers).json() == {"partial": partial}


def test_redirect_is_303_for_browsers_and_a_header_for_htmx(app: FastAPI) -> None:
    @app.post("/x")
    def create(request: Request) -> Response:
        return redirect(request, "/jobs/1")

    client = TestClient(app, follow_redirects=False)
    plain, partial = client.post("/x"), client.post("/x", headers={"HX-Request": "true"})
    assert (plain.status_code, plain.headers["location"], plain.headers["vary"]) == (303, "/jobs/1", "HX-Request")
    assert (partial.status_code, partial.headers["hx-redirect"]) == (200, "/jobs/1")


def test_pages_vary_with_htmx(app: FastAPI, tmp_path: Path) -> None:
    _serve(app, tmp_path, "hello")
    assert TestClient(app).get("/jobs/7").headers["vary"] == "HX-Request"
