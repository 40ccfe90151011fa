"""Which of many to try."""

from __future__ import annotations


def evenly(count: int, at: int) -> list[int]:
    """At most `at` numbers from 1 to `count`, the first and the last among them."""
    if count <= at or at < 2:
        return list(range(1, count + 1))[: max(at, 1)]
    return sorted({1 + index * (count - 1) // (at - 1) for index in range(at)})
