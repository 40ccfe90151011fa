"""Python code that comes with a model: whether it needs any, which files, and whether just these were allowed.

Read from the folder alone, and nothing of it is run. The web shows it, the worker and each child compare it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REVISION_FILE = ".revision"  # the hub's commit that the folder is of, beside code that came from there
_CONFIGS = ("config.json", "tokenizer_config.json", "generation_config.json")
_AUTO_MAP = "auto_map"
_CLASS = re.compile(r"(\w+)\.\w+")  # module.Class: no path, and no other repository (owner/name--module.Class)
_MOST_FILES, _MOST_BYTES = 200, 4 * 1024**2
HOW_TO_ALLOW = "An admin can look at the code and allow it, on the model's page or by `loradeck models code`."


class CodeFault(Exception):
    """The code cannot be allowed, whoever wants to."""


@dataclass(frozen=True, slots=True)
class CodeFile:
    """One file, by its path in the model's folder, as it was read."""

    path: str
    content: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True, slots=True)
class OwnCode:
    """All Python files of a model's folder. `sha256` stands for all of them and the revision."""

    files: tuple[CodeFile, ...]
    revision: str | None

    @property
    def sha256(self) -> str:
        lines = "".join(f"{file.sha256}  {file.path}\n" for file in self.files)
        return hashlib.sha256(f"{self.revision or ''}\n{lines}".encode()).hexdigest()

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 by path."""
        return {file.path: file.sha256 for file in self.files}


def needs_code(folder: Path) -> bool:
    """Whether a configuration in the folder names classes of its own. Raises: CodeFault where one is not JSON."""
    return bool(_references(folder))


def read_code(folder: Path) -> OwnCode:
    """Raises: CodeFault where the code lies elsewhere, or is more than anybody would read; OSError."""
    paths = sorted(path for path in folder.rglob("*.py") if path.is_file())
    if len(paths) > _MOST_FILES or sum(path.stat().st_size for path in paths) > _MOST_BYTES:
        raise CodeFault(f"It comes with more than {_MOST_FILES} files or {_MOST_BYTES // 1024**2} MiB of Python code.")
    contents = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    for reference in _references(folder):
        module = _CLASS.fullmatch(reference)
        if module is None or f"{module[1]}.py" not in contents:
            raise CodeFault(f"Its configuration names code that is not in its folder: {reference!r:.120}.")
    files = tuple(CodeFile(path, content) for path, content in contents.items())
    return OwnCode(files, _read_revision(folder))


def find_change(now: Mapping[str, str], allowed: Mapping[str, str]) -> str | None:
    """The first file that is not as it was allowed, in words. Both: SHA-256 by path."""
    for path in sorted({*now, *allowed}):
        if path not in allowed:
            return f"{path} is new"
        if path not in now:
            return f"{path} is gone"
        if now[path] != allowed[path]:
            return f"{path} has changed"
    return None


def _references(folder: Path) -> list[str]:
    """Every class that an `auto_map` names, however deep it lies. Raises: CodeFault."""
    found: list[str] = []
    for path in (folder / name for name in _CONFIGS):
        try:
            for auto_map in _auto_maps(json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None):
                found += (str(each) for each in _leaves(auto_map))
        except (ValueError, RecursionError) as error:
            raise CodeFault(f"{path} is not valid JSON: {error}") from error
    return found


def _auto_maps(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        if _AUTO_MAP in value:
            yield value[_AUTO_MAP]
        for key, inner in value.items():
            if key != _AUTO_MAP:
                yield from _auto_maps(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _auto_maps(inner)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _leaves(inner)
    elif value is not None:
        yield value


def _read_revision(folder: Path) -> str | None:
    path = folder / REVISION_FILE
    return path.read_text(encoding="utf-8").strip()[:100] if path.is_file() else None
