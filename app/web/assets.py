"""The front-end files: read once at start, served from memory under names that change with their content."""

from __future__ import annotations

import gzip
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from app.core.errors import AppError

VENDOR_FILES = (
    "vendor/htmx.min.js",
    "vendor/hx-sse.min.js",
    "vendor/pico.min.css",
    "vendor/uplot.min.css",
    "vendor/uplot.min.js",
)
_CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
_BUILD = "~"  # begins the part of an address that changes with the files
# Of our own files: lines that hold a comment alone are a tenth of what would be sent. Vendor files keep their licences.
_COMMENTS = re.compile(rb"(?m)^[ \t]*(?://.*|/\*(?:[^*]|\*(?!/))*\*/[ \t]*)\n")
_FOREVER = "public, max-age=31536000, immutable"


class AssetsMissing(AppError):
    """The front-end files are missing."""

    code = "assets_missing"


@dataclass(frozen=True, slots=True)
class _Asset:
    body: bytes
    gzipped: bytes
    content_type: str
    digest: str


class Assets:
    """All files below the static folder."""

    def __init__(self, folder: Path) -> None:
        """Raises: AssetsMissing where a file that every page needs is not there."""
        missing = [name for name in VENDOR_FILES if not (folder / name).is_file()]
        if missing:
            raise AssetsMissing(
                f"assets missing: {', '.join(missing)} not found in {folder}; run `make assets`",
                advice="Run `make assets` in the checkout, or install the package again.",
            )
        self._assets = {path.relative_to(folder).as_posix(): _read_asset(path) for path in _list_files(folder)}
        self._build = _digest("".join(f"{name} {asset.digest}\n" for name, asset in self._assets.items()).encode())

    def url(self, name: str) -> str:
        """The address of a file, which changes with the content of any: so modules find each other by relative paths.

        Raises: KeyError for an unknown file.
        """
        self._assets[name]
        return f"/static/{_BUILD}{self._build}/{name}"

    async def serve(self, request: Request) -> Response:
        """Route `/static/{name:path}`: only known names, so no path is ever opened on request."""
        name: str = request.path_params["name"]
        build, _, rest = name.partition("/") if name.startswith(_BUILD) else ("", "", name)
        asset = self._assets.get(rest)
        if asset is None:
            return Response("There is no such file.", status_code=404, media_type="text/plain")
        headers = {
            "Cache-Control": _FOREVER if build == f"{_BUILD}{self._build}" else "no-cache",
            "Content-Type": asset.content_type,
            "ETag": f'"{asset.digest}"',
            "Vary": "Accept-Encoding",
        }
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(asset.gzipped, headers={**headers, "Content-Encoding": "gzip"})
        return Response(asset.body, headers=headers)


def _list_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]


def _read_asset(path: Path) -> _Asset:
    body = path.read_bytes()
    if path.suffix in (".js", ".css") and "vendor" not in path.parts:
        body = _COMMENTS.sub(b"", body)
    content_type = _CONTENT_TYPES.get(path.suffix, "application/octet-stream")
    return _Asset(body, gzip.compress(body, mtime=0), content_type, _digest(body))


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:16]
