"""The worker as it is, but for what it starts: `chaos.light` as children, and nothing that probes torch."""

from __future__ import annotations

import sys
from functools import partial
from unittest import mock

import worker.__main__
from worker.children import Children
from worker.probe import Probe

CHILD_COMMAND = (sys.executable, "-m", "chaos.light")


def main() -> int:
    children, probe = partial(Children, command=CHILD_COMMAND), partial(Probe, command=("true",))
    with mock.patch("worker.__main__.Children", children), mock.patch("worker.__main__.Probe", probe):
        return worker.__main__.main()


if __name__ == "__main__":
    sys.exit(main())
