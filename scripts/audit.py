"""`make audit`: three looks at what is shipped, each made whatever the others found; the last lines say what came out.

Exit code: 0 nothing was found; 1 something was; 2 nothing was found, but a look could not be made.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

BIN = Path(sys.executable).parent
SBOM = "sbom.json"
CLEAN, FOUND, NOT_LOOKED = 0, 1, 2
_PASSED_OVER = "could not be audited"  # pip-audit says so of a package that its service does not know, and exits with 0
_OFFLINE = ("ConnectionError", "Failed to resolve", "Max retries exceeded", "ServiceError", "timed out")

Command = Sequence[str]

LOOKS: Mapping[str, Command] = {
    "bandit over app and worker": (
        *(str(BIN / "bandit"), "--quiet", "--configfile", "pyproject.toml"),
        *("--recursive", "app", "worker"),
    ),
    f"bill of materials in {SBOM}": (
        *(str(BIN / "cyclonedx-py"), "environment", sys.executable),
        *("--pyproject", "pyproject.toml", "--output-file", SBOM),
    ),
    "known faults of the pinned versions (pip-audit, asks pypi.org)": (
        *(str(BIN / "pip-audit"), "--requirement", "constraints.txt", "--no-deps", "--disable-pip"),
        *("--progress-spinner", "off", "--timeout", "15"),
    ),
}


def look(command: Command) -> tuple[int, str]:
    """One look: what it came to, and how that is said."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    except OSError as error:
        return NOT_LOOKED, f"NOT DONE: {error}"
    if done.returncode != 0 and any(word in done.stdout for word in _OFFLINE):
        reason = done.stdout.strip().splitlines()[-1][:300]
        return NOT_LOOKED, f"NOT DONE: its service cannot be reached from here. {reason}"
    passed_over = [line for line in done.stdout.splitlines() if _PASSED_OVER in line]
    if done.returncode == 0 and passed_over:
        reason = " ".join(passed_over[0].split())[:200]
        return NOT_LOOKED, f"NOT DONE for {len(passed_over)} packages, which its service does not know: {reason}; …"
    sys.stdout.write(done.stdout)
    sys.stdout.flush()
    return (CLEAN, "nothing found") if done.returncode == 0 else (FOUND, "FOUND something: see above")


def main(looks: Mapping[str, Command] = LOOKS) -> int:
    """Make each look, then sum up."""
    outcomes = {name: look(command) for name, command in looks.items()}
    for name, (_, said) in outcomes.items():
        sys.stdout.write(f"{name}: {said}\n")
    codes = [code for code, _ in outcomes.values()]
    return FOUND if FOUND in codes else max(codes)


if __name__ == "__main__":
    sys.exit(main())
