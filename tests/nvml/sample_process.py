"""Sample once per line on standard input, `{"child_pid": …, "clock": …}`, and print each reading as JSON."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from worker.gpu import Sampler


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    now = 0.0
    sampler = Sampler(Path(sys.argv[1]), clock=lambda: now)
    for line in sys.stdin:
        request = json.loads(line)
        now = request["clock"]
        sys.stdout.write(json.dumps(sampler.sample(request["child_pid"]).to_json()) + "\n")
        sys.stdout.flush()
    sampler.close()


if __name__ == "__main__":
    main()
