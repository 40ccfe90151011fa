"""The audit makes each of its looks, and its exit code hides none of them."""

from __future__ import annotations

import sys

import pytest

from scripts import audit


def _says(text: str, code: int) -> tuple[str, ...]:
    return (sys.executable, "-c", f"print({text!r}); raise SystemExit({code})")


CLEAN = _says("fine", 0)
FOUND = _says("Issue: [B602] shell", 1)
OFFLINE = _says("Traceback\nrequests.exceptions.ConnectionError: Max retries exceeded with url: /pypi", 1)
PASSED_OVER = _says("No known vulnerabilities found\nsix   Dependency not found and could not be audited: six", 0)
MISSING = ("/nowhere/pip-audit",)


@pytest.mark.parametrize(
    ("looks", "code", "said"),
    [
        ([CLEAN, CLEAN], 0, ["nothing found", "nothing found"]),
        ([FOUND, CLEAN], 1, ["FOUND", "nothing found"]),
        ([OFFLINE, CLEAN], 2, ["NOT DONE: its service cannot be reached", "nothing found"]),
        ([OFFLINE, FOUND], 1, ["NOT DONE", "FOUND"]),
        ([PASSED_OVER, CLEAN], 2, ["NOT DONE for 1 packages, which its service does not know: six", "nothing found"]),
        ([MISSING, CLEAN], 2, ["NOT DONE", "nothing found"]),
    ],
)
def test_each_look_is_made_and_summed_up(
    capsys: pytest.CaptureFixture[str], looks: list[tuple[str, ...]], code: int, said: list[str]
) -> None:
    assert audit.main({f"look {number}": command for number, command in enumerate(looks)}) == code
    lines = capsys.readouterr().out.splitlines()[-len(looks) :]
    for number, (line, words) in enumerate(zip(lines, said, strict=True)):
        assert line.startswith(f"look {number}: {words}")


def test_the_looks_are_those_that_are_promised() -> None:
    tools = [command[0].rpartition("/")[2] for command in audit.LOOKS.values()]
    assert tools == ["bandit", "cyclonedx-py", "pip-audit"]
