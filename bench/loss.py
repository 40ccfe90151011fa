"""The loss at the labelled positions, in chunks, beside the stock one over all logits: time, peak memory, difference.

    python -m bench.loss [--positions 2048] [--vocabulary 49152] [--hidden 576] [--labelled 0.43] [--repeats 3]

Both compute the summed cross-entropy in float32 on the CPU and its gradient by the hidden states, with a frozen head.
Memory is what the process' resident set grows by at its peak, as the kernel counts it. Prints a table and one JSON
line; exits with 1 where ours is not the faster one, takes more than 80 MiB, or differs by more than 1e-5.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
import torch.nn.functional as F  # noqa: N812 - the usual name

from worker.training.data import IGNORED_LABEL
from worker.training.losses import chunked_loss

MIB = 1 << 20
MOST_MIB, MOST_DIFFERENCE = 80, 1e-5
Loss = Callable[[torch.Tensor], torch.Tensor]  # of hidden states (positions, hidden)


def stock(hidden: torch.Tensor, head: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """As models compute it: logits of all positions, (positions, vocabulary)."""
    return F.cross_entropy(F.linear(hidden, head), labels, ignore_index=IGNORED_LABEL, reduction="sum")


def ours(hidden: torch.Tensor, head: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Labelled positions only, some of their logits at a time."""
    learned = labels != IGNORED_LABEL
    return chunked_loss(hidden[learned], head, labels[learned])


def measure(loss: Loss, hidden: torch.Tensor) -> tuple[float, float, torch.Tensor]:
    """Seconds, MiB at the peak, and the gradient, (positions, hidden)."""
    leaf = hidden.clone().requires_grad_()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before, begun = psutil.Process().memory_info().rss, time.perf_counter()
    loss(leaf).backward()
    seconds = time.perf_counter() - begun
    if leaf.grad is None:
        raise RuntimeError("the loss has no gradient")
    return seconds, (_peak_bytes() - before) / MIB, leaf.grad


def _peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--positions", type=int, default=2048)
    parser.add_argument("--vocabulary", type=int, default=49_152)
    parser.add_argument("--hidden", type=int, default=576)
    parser.add_argument("--labelled", type=float, default=0.43)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    torch.manual_seed(0)
    head, hidden = torch.randn(asked.vocabulary, asked.hidden) * 0.02, torch.randn(asked.positions, asked.hidden)
    labels = torch.randint(asked.vocabulary, (asked.positions,))
    labels[torch.rand(asked.positions) > asked.labelled] = IGNORED_LABEL
    ways: dict[str, Loss] = {
        "stock": lambda states: stock(states, head, labels),
        "ours": lambda states: ours(states, head, labels),
    }
    gradients, found = {}, {name: ([], []) for name in ways}
    for _ in range(asked.repeats + 1):  # the first of each warms up
        for name, loss in ways.items():
            seconds, mib, gradients[name] = measure(loss, hidden)
            found[name][0].append(seconds)
            found[name][1].append(mib)
    figures = {name: {"s": statistics.median(s[1:]), "mib": max(m[1:])} for name, (s, m) in found.items()}
    difference = float((gradients["ours"] - gradients["stock"]).norm() / gradients["stock"].norm())
    for name, each in figures.items():
        print(f"{name:6} {each['s']:6.2f} s {each['mib']:7.0f} MiB")
    print(json.dumps({"benchmark": "loss", **figures, "gradient_difference": difference}))
    slower = figures["ours"]["s"] >= figures["stock"]["s"]
    if slower or figures["ours"]["mib"] > MOST_MIB or difference > MOST_DIFFERENCE:
        sys.exit("Our loss is not faster than the stock one within 80 MiB, or it is another.")


if __name__ == "__main__":
    main()
