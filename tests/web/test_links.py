"""Paths of routes by their names: what the framework finds, without trying every route."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient
from starlette.routing import NoMatchFound

from app.web.links import Links


def test_every_route_has_the_path_that_the_framework_gives_it(client: TestClient) -> None:
    app: Any = client.app
    links, looked_at = Links(app.router.routes), 0
    for route in iter_route_contexts(app.router.routes):
        params = {
            name: 7 if "int" in type(convertor).__name__.lower() else "a"
            for name, convertor in route.param_convertors.items()
        }
        assert links.path_for(route.name or "", **params) == str(app.url_path_for(route.name or "", **params))
        looked_at += 1
    assert looked_at > 150


def test_what_no_route_is_called_or_takes_is_said(client: TestClient) -> None:
    links = Links(client.app.router.routes)  # type: ignore[attr-defined]
    with pytest.raises(NoMatchFound, match="show_nothing"):
        links.path_for("show_nothing")
    with pytest.raises(NoMatchFound, match="show_job"):
        links.path_for("show_job", dataset_id=1)
