"""Build hook: a wheel (or an editable install) comes with the front-end files in static/vendor."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class AssetsHook(BuildHookInterface[Any]):
    """Runs scripts/fetch_assets.py before the files are collected."""

    def dependencies(self) -> list[str]:
        """Node as a Python package, only where it is needed."""
        fetch = load_fetch_assets(Path(self.root))
        return [] if fetch.is_current(Path(self.root)) else fetch.missing_requirements()

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - the interface's signature
        load_fetch_assets(Path(self.root)).ensure_assets(Path(self.root))


def load_fetch_assets(root: Path) -> ModuleType:
    """Import scripts/fetch_assets.py by its path: scripts/ is no package."""
    spec = importlib.util.spec_from_file_location("fetch_assets", root / "scripts" / "fetch_assets.py")
    if spec is None or spec.loader is None:
        raise ImportError("scripts/fetch_assets.py is missing from the source tree")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
