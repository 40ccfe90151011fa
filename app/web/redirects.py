"""Where a form leads back to: a page of ours, never another site."""

from __future__ import annotations

from urllib.parse import urlsplit


def local_path(wanted: str) -> str:
    """The path if it is one of this dashboard, else `/`.

    Browsers read `//host` and `/\\host` as another host, and drop tabs and line breaks before they look.
    """
    if not wanted.startswith("/") or wanted[1:2] in ("/", "\\") or "\\" in wanted or not wanted.isprintable():
        return "/"
    try:
        parts = urlsplit(wanted)
    except ValueError:
        return "/"
    return "/" if parts.scheme or parts.netloc else wanted
