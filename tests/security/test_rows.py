"""docs/security.md: all 43 traps are in its table, and each test that a row names exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_ROW = re.compile(r"^\| (?P<number>\d+) \| (?P<trap>[^|]+) \| (?P<tests>[^|]+) \|$", re.MULTILINE)


def _rows() -> dict[int, list[str]]:
    found = _ROW.finditer((ROOT / "docs" / "security.md").read_text(encoding="utf-8"))
    return {int(row["number"]): re.findall(r"`(tests/[^`]+)`", row["tests"]) for row in found}


@cache
def _tests_of(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_every_trap_has_its_row() -> None:
    assert list(_rows()) == list(range(1, 44))


def test_every_row_names_a_test_that_exists() -> None:
    for number, tests in _rows().items():
        assert tests, number
        for test in tests:
            path, _, name = test.partition("::")
            assert (ROOT / path).is_file(), test
            assert name in _tests_of(path), test


def test_a_test_named_for_a_row_is_in_the_table() -> None:
    named = {test.partition("::")[2] for tests in _rows().values() for test in tests}
    for path in (ROOT / "tests" / "security").glob("test_*.py"):
        ours = _tests_of(str(path.relative_to(ROOT)))
        for number in {int(found[1]) for name in ours if (found := re.match(r"test_row_(\d+)_", name))}:
            assert any(f"test_row_{number:02}_" in name for name in named), number
