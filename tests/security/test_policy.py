"""Who may do what: the committed table against the application, and the application against a walk over it."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient

from app.core.accounts.roles import Role
from app.core.settings import Settings
from app.main import create_app
from app.web.access import RouteTable
from app.web.policy import POLICY, PUBLIC
from tests.security.conftest import HOST, LogIn, browse
from tests.security.policy_table import FILE, routes, table

OPEN = {"static", "api_health", "show_login", "log_in", "show_setup", "set_up"}


def test_the_table_is_that_of_the_application(app: FastAPI) -> None:
    """Differs? `python -m tests.security.policy_table` writes it anew; look the difference through."""
    assert table(app).splitlines() == FILE.read_text(encoding="utf-8").splitlines()


def test_each_route_has_a_policy_and_each_policy_a_route(app: FastAPI) -> None:
    assert {name for name, _, _ in routes(app)} == set(POLICY)


def test_only_login_setup_health_and_static_are_public() -> None:
    assert {name for name, rule in POLICY.items() if rule is PUBLIC} == OPEN


def test_names_of_routes_are_their_own(app: FastAPI) -> None:
    """Two routes of one name would share a policy."""
    names = [context.name for context in iter_route_contexts(app.router.routes)]
    assert len(names) == len(set(names))


def test_what_changes_something_is_written_down(app: FastAPI) -> None:
    quiet = {"log_in", "set_up"}  # these write their own rows
    quiet |= {
        "show_fit",
        "show_launch",
        "show_sweep_preview",
        "export_yaml",
        "import_yaml",
        "api_plan",
        "api_import_job",
    }  # these change nothing
    changing = {name for name, method, _ in routes(app) if method not in ("GET", "HEAD")}
    assert {name for name, rule in POLICY.items() if rule.changes} == changing - quiet


def test_row_01_every_route_and_method_is_closed_to_strangers_shadowray_cve_2023_48022(
    app: FastAPI, anonymous: TestClient
) -> None:
    """Also MLflow CVE-2026-2652."""
    walked = 0
    for name, method, path in routes(app):
        filled = path.replace(":path}", "}").replace("{job_id}", "1")
        if name in OPEN:
            continue
        response = anonymous.request(method, filled)
        expected = 401 if path.startswith("/api/") else 303
        assert response.status_code == expected, (name, method, response.status_code)
        if expected == 303:
            assert response.headers["location"].startswith("/login?next=")
        walked += 1
    assert walked > 110


def test_no_method_and_no_spelling_is_a_way_in(anonymous: TestClient) -> None:
    for method in ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"):
        for path in ("/", "/jobs", "/jobs/", "//jobs", "/api/v1/jobs", "/nowhere", "/api/nowhere", "/JOBS"):
            assert anonymous.request(method, f"http://{HOST}{path}").status_code in (401, 303), (method, path)


def test_a_route_without_a_policy_answers_403_to_everybody(app: FastAPI, settings: Settings, logged_in: LogIn) -> None:
    router = APIRouter()

    @router.get("/brand-new")
    def brand_new() -> str:
        raise AssertionError("it ran")

    admin = logged_in(Role.ADMIN)
    app.include_router(router)
    app.middleware_stack = app.build_middleware_stack()
    response = admin.get("/brand-new")
    assert response.status_code == 403
    assert "app/web/policy.py" in response.text


def test_the_door_finds_the_route_that_answers(app: FastAPI) -> None:
    """Both match in the same order: a fixed path ahead of a parameter."""
    found = RouteTable(app.router.routes, POLICY)
    assert found.find_name("/jobs/new", "GET") == "new_job"
    assert found.find_name("/jobs/7", "GET") == "show_job"
    assert found.find_name("/jobs/7", "POST") is None
    assert found.find_name("/api/v1/datasets/check", "POST") == "api_check_file"


def test_refusals_say_what_is_missing(app: FastAPI, logged_in: LogIn, anonymous: TestClient) -> None:
    told = logged_in(Role.VIEWER).post("/jobs/demo").text
    assert "needs the role member" in told
    assert "viewer" in told
    error = anonymous.get("/api/v1/jobs")
    assert error.headers["www-authenticate"] == "Bearer"
    assert error.json()["error"]["code"] == "unauthorized"


def test_a_stranger_comes_back_to_the_page_that_was_asked_for(app: FastAPI, anonymous: TestClient) -> None:
    assert anonymous.get("/jobs?q=a%26b").headers["location"] == "/login?next=/jobs%3Fq%3Da%2526b"
    region = anonymous.get(
        "/jobs", headers={"HX-Request": "true", "HX-Current-URL": f"http://{HOST}/jobs?status=failed"}
    )
    assert region.status_code == 401
    assert region.headers["hx-redirect"] == "/login?next=/jobs%3Fstatus%3Dfailed"


def test_switched_off_pages_are_open_and_the_api_needs_its_token(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"auth": "off"}))
    with TestClient(app, base_url=f"http://{HOST}"):
        assert "Accounts are off" in browse(app).get("/").text
        assert browse(app).get("/users").status_code == 200
        assert browse(app).get("/api/v1/jobs").status_code == 401
        assert browse(app).get("/login").headers["location"] == "/"
        assert browse(app).get("/setup").status_code == 404
        assert browse(app).post("/account/password", data={"current": "a", "password": "b"}).status_code == 409
