"""Jinja2 for the pages: escaping on, unknown names are errors, units are formatted here alone."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.templating import Jinja2Templates
from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup
from starlette.responses import HTMLResponse, RedirectResponse, Response

from app.core.accounts.identity import Identity
from app.core.jobs.shown import in_words, show, typed
from app.core.jobs.status import status_words
from app.web.assets import Assets
from app.web.frame import percent_of, read_frame
from app.web.identities import identity_of
from app.web.links import Links

NOT_AVAILABLE = "n/a"
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def create_templates(folder: Path, assets: Assets, **extra_globals: Any) -> Jinja2Templates:
    """The template environment. `app.state.templates` holds it; `extra_globals` are seen by every template."""
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        bytes=format_bytes,
        duration=format_duration,
        datetime=format_datetime,
        clock=format_clock,
        from_now=lambda seconds: format_clock(time.time() + seconds),
        number=format_number,
        words=status_words,
        typed=typed,
        shown=show_value,
        in_words=in_words,
        percent=percent_of,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    environment.globals.update(
        asset=assets.url, url_for=path_for, read_frame=read_frame, whoami=whoami, **extra_globals
    )
    return Jinja2Templates(env=environment)


@pass_context
def path_for(context: Context, name: str, /, **path_params: Any) -> str:
    """The path of the route `name`: without scheme and host, so right behind any proxy. Raises: NoMatchFound."""
    request: Request = context["request"]
    links: Links = request.app.state.links
    return str(request.scope.get("root_path", "")) + links.path_for(name, **path_params)


@pass_context
def whoami(context: Context) -> Identity:
    """On whose behalf the page is shown."""
    request: Request = context["request"]
    return identity_of(request)


def render(request: Request, name: str, context: Mapping[str, Any], status_code: int = 200) -> HTMLResponse:
    """A page or a partial. Caches must not mix the two, hence `Vary`."""
    templates: Jinja2Templates = request.app.state.templates
    return templates.TemplateResponse(request, name, dict(context), status_code, headers={"Vary": "HX-Request"})


def render_region(
    request: Request, region: str, page: str, context: Mapping[str, Any], status_code: int = 200
) -> HTMLResponse:
    """The region alone where htmx asks for it, else the page that holds it."""
    return render(request, region if wants_partial(request) else page, context, status_code)


def wants_partial(request: Request) -> bool:
    """Whether htmx asks for a region rather than for a page (it restores its history with whole pages)."""
    return request.headers.get("hx-request") == "true" and "hx-history-restore-request" not in request.headers


def redirect(request: Request, url: Any) -> Response:
    """Send the browser on after a POST: 303, or htmx's own header, since fetch would follow a 303 unseen."""
    if wants_partial(request):
        return Response(headers={"HX-Redirect": str(url), "Vary": "HX-Request"})
    return RedirectResponse(str(url), status_code=303, headers={"Vary": "HX-Request"})


def format_bytes(value: float | None) -> str:
    """Bytes in binary units: `98.4 MiB`."""
    if value is None:
        return NOT_AVAILABLE
    size = float(value)
    for unit in _UNITS:
        if abs(size) < 1024 or unit == _UNITS[-1]:
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def format_duration(seconds: float | None) -> str:
    """Seconds as `42s`, `18m 05s` or `2h 03m`."""
    if seconds is None:
        return NOT_AVAILABLE
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minutes:02d}m"
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"


def format_datetime(timestamp: float | None) -> Markup | str:
    """Seconds since the epoch as `<time>` in UTC; the page's script shows it in the reader's zone."""
    if timestamp is None:
        return NOT_AVAILABLE
    moment = datetime.fromtimestamp(timestamp, UTC)
    return Markup('<time datetime="{}">{}</time>').format(
        moment.isoformat(timespec="seconds"), moment.strftime("%Y-%m-%d %H:%M UTC")
    )


def format_clock(timestamp: float) -> Markup:
    """As `format_datetime`, but of something near: the page's script leaves the day out where it is today."""
    moment = datetime.fromtimestamp(timestamp, UTC)
    return Markup('<time datetime="{}" data-clock>{}</time>').format(
        moment.isoformat(timespec="seconds"), moment.strftime("%H:%M UTC")
    )


def show_value(value: Any) -> str:
    """A spec's value for people."""
    return "none" if value is None else show(value)


def format_number(value: float | None, digits: int = 4) -> str:
    """Counts with thousands separators, other numbers with `digits` significant figures."""
    if value is None:
        return NOT_AVAILABLE
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e15):
        return f"{int(value):,}"
    return f"{value:,.{digits}g}" if abs(value) < 10**digits else f"{value:,.0f}"
