"""A small disk of the run's own, so that it can be filled up: a tmpfs in a mount namespace, where that is allowed."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

_BYTES = 1 << 30
_UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")
_MOUNT = f'mount -t tmpfs -o size={_BYTES} tmpfs "$0" && exec "$@"'


def run_on_own_disk(arguments: Sequence[str]) -> int:
    """Run `python -m chaos` with these arguments on a folder of its own; returns its exit code.

    The folder vanishes with the run; what the run wants kept it has copied beside it. Where the system allows no mount,
    the folder lies on the common disk, which is not filled up.
    """
    place = Path(tempfile.mkdtemp(prefix="loradeck-chaos-"))
    disk, kept = place / "disk", place / "kept"
    disk.mkdir()
    command = [sys.executable, "-m", "chaos", *arguments, "--home", str(disk / "home"), "--keep", str(kept)]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    process = subprocess.Popen([*_in_mount(disk), *command])
    try:
        return process.wait()
    finally:
        process.terminate()  # where this one is told to end before it
        process.wait()
        if kept.exists():
            shutil.rmtree(disk, ignore_errors=True)
        else:
            shutil.rmtree(place, ignore_errors=True)


def _in_mount(disk: Path) -> list[str]:
    """What to put before a command so that `disk` is a tmpfs for it alone; nothing where that is not allowed."""
    wrapped = [*_UNSHARE, "sh", "-c", _MOUNT, str(disk)]
    if shutil.which(_UNSHARE[0]) is None:
        return []
    tried = subprocess.run([*wrapped, "true"], check=False, capture_output=True)
    return wrapped if tried.returncode == 0 else []
