"""See to it that the tests have a Chromium: the one on PATH, else Debian's package, installed as root.

LORADECK_CHROMIUM names another one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


def find_browser() -> str | None:
    """The browser's path, or None."""
    return os.environ.get("LORADECK_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


def main() -> None:
    if find_browser():
        return
    if shutil.which("apt-get") is None:
        sys.exit("The tests need Chromium: install it, or set LORADECK_CHROMIUM to its path.")
    prefix = [] if os.geteuid() == 0 else ["sudo"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "chromium"]):
        subprocess.run([*prefix, *command], check=True, env=environment, stdout=sys.stderr)


if __name__ == "__main__":
    main()
