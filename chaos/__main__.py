"""`python -m chaos --seed S --kills K`: kill Loradeck's processes K times while it works; was anything lost?

Prints what it does on stderr and one JSON line in the end; exits 1 and keeps the data folder where an invariant is
broken. The seed decides what is killed and in which order; the moments depend on the machine, too.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
from pathlib import Path

from chaos.disk import run_on_own_disk
from chaos.report import print_report
from chaos.run import run_chaos


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="what is killed; printed")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--light", action="store_true", help="jobs that compute next to nothing, instead of torch")
    parser.add_argument("--home", type=Path, help="an empty data folder; default: one on a small disk of its own")
    parser.add_argument("--keep", type=Path, help="where to copy the data folder if an invariant is broken")
    asked = parser.parse_args()
    if asked.home is None:
        return run_on_own_disk([*sys.argv[1:], "--seed", str(asked.seed)])
    result = run_chaos(asked.home, asked.seed, asked.kills, light=asked.light)
    code = print_report(result)
    if code and asked.keep is not None:
        shutil.copytree(asked.home, asked.keep)
    if code:
        print(f"The data folder is kept: {asked.keep or asked.home}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
