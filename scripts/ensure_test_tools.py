"""See to it that the tests have a Chromium and a C compiler: install Debian's packages of what is not on PATH."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

TOOLS = {"chromium": ("chromium",), "gcc": ("cc", "gcc")}  # package -> commands, any of which will do


def missing_packages() -> list[str]:
    """Debian packages whose commands are not there."""
    return [package for package, commands in TOOLS.items() if not any(map(shutil.which, commands))]


def main() -> None:
    packages = missing_packages()
    if not packages:
        return
    if shutil.which("apt-get") is None:
        sys.exit(f"The tests need {' and '.join(packages)}: install what is missing and run this again.")
    prefix = [] if os.geteuid() == 0 else ["sudo"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", *packages]):
        subprocess.run([*prefix, *command], check=True, env=environment, stdout=sys.stderr)


if __name__ == "__main__":
    main()
