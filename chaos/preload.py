"""The library `full_disk.c` in a process: built when it is needed, preloaded, and told what to do."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

SOURCE = Path(__file__).with_name("full_disk.c")
_PRELOAD = "LD_PRELOAD"


def run_preloaded(folder: Path, module: str, arguments: Sequence[str]) -> int:
    """`python -m module arguments` with the library in it, which is built in `folder` by the system's C compiler."""
    library = folder / "full_disk.so"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"], check=True)
    environment = {**os.environ, _PRELOAD: str(library)}
    return subprocess.run([sys.executable, "-m", module, *arguments], env=environment, check=False).returncode


class PreloadedDisk:
    """What the library counts and does in this process. Processes that this one starts are without it."""

    def __init__(self) -> None:
        """Raises: AttributeError where it was not preloaded."""
        os.environ.pop(_PRELOAD, None)
        self._library = ctypes.CDLL(None)
        self._library.disk_filled_by.restype = ctypes.c_char_p
        self._library.disk_writes.restype = ctypes.c_long

    def begin(self, prefix: Path, full_at: int) -> None:
        """Count writes to files whose path begins with `prefix`; number `full_at` (from 1; 0: none) fills it."""
        self._library.disk_begin(os.fsencode(prefix), ctypes.c_long(full_at))

    def make_room(self) -> None:
        """For all that is still to come."""
        self._library.disk_make_room()

    @property
    def writes(self) -> int:
        """How many there were."""
        return int(self._library.disk_writes())

    @property
    def full(self) -> bool:
        """Whether there is no room now."""
        return bool(self._library.disk_is_full())

    @property
    def filled_by(self) -> str:
        """The name of the file whose write filled it; empty where that has not come."""
        return Path(os.fsdecode(self._library.disk_filled_by())).name
