"""What the dataset doctor's panel shows of a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from app.core.datasets.report import KIND_WORDS, Histogram, Problem, ProblemKind, Report, Tokens, stops_training

BASE, TOP = 160, 24  # the bars' feet and the tallest one's head, in pixels from the drawing's upper edge
_MOST_TICKS = 5  # of the axis, which may be narrow
_ROOM = 85  # per cent; what is labelled beyond would run into the label of the last bar
_STEP = 64  # tokens: a max_length that cuts nothing is told as a multiple


def findings_context(found: Mapping[str, Any]) -> dict[str, Any]:
    """Problems by kind, what stops training first; `found` is a report, or what is known of one already."""
    problems: list[Problem] = found.get("problems", [])
    kinds = [
        {
            "words": KIND_WORDS[ProblemKind(kind)],
            "count": count,
            "stops": stops_training(kind),
            "problems": [problem for problem in problems if problem["kind"] == kind],
        }
        for kind, count in found.get("counts", {}).items()
    ]
    kinds.sort(key=lambda kind: not kind["stops"])
    return {"looked_at": found.get("rows", 0), "unusable": found.get("unusable", 0), "kinds": kinds}


def report_context(report: Report, dataset: str) -> dict[str, Any]:
    """A whole report of the dataset of that name."""
    tokens = report["tokens"]
    return {
        "report": report,
        **findings_context(report),
        "tokens": tokens,
        "chart": chart_of(tokens["histogram"], tokens["max_length"]) if tokens and tokens["rows"] else None,
        "choices": _choices(report, tokens, dataset) if tokens and tokens["rows"] else [],
        "uncut": -(-tokens["max"] // _STEP) * _STEP if tokens and tokens["truncated"] else None,
    }


def chart_of(histogram: Histogram, max_length: int) -> dict[str, Any]:
    """Bars, ticks and the cut-off line; across in per cent of the drawing, down in pixels."""
    width, counts, over = histogram["width"], histogram["counts"], histogram["over"]
    columns = len(counts) + (2 if over else 0)  # a gap, then what is longer
    share, tallest = 100 / columns, max([*counts, over])
    end = width * len(counts)
    bars = [_bar(index, count, share, tallest) for index, count in enumerate(counts) if count]
    rows = [(f"{index * width:,} to {(index + 1) * width - 1:,}", count) for index, count in enumerate(counts)]
    if over:
        bars.append(_bar(columns - 1, over, share, tallest))
        rows.append((f"{end:,} or more", over))
    return {
        "bars": bars,
        "rows": rows,
        "tallest": tallest,
        "ticks": _ticks(len(counts), width, share, _ROOM if over else 100),
        "over": (columns - 0.5) * share if over else None,
        "end": end,
        "line": 100 * max_length / (width * columns) if max_length <= end else None,
    }


def _bar(index: int, count: int, share: float, tallest: int) -> dict[str, float]:
    height = max(1.0, (BASE - TOP) * count / tallest)  # one row is still to be seen
    return {"x": (index + 0.08) * share, "width": 0.84 * share, "y": BASE - height, "height": height, "count": count}


def _ticks(bars: int, width: int, share: float, room: float) -> list[tuple[float, str]]:
    """Where the axis is labelled, and with how many tokens."""
    step = next(step for step in (1, 2, 5, 10, 20, 50) if bars <= step * _MOST_TICKS)
    return [(at * share, f"{at * width:,}") for at in range(0, bars, step) if at * share < room]


def _choices(report: Report, tokens: Tokens, dataset: str) -> list[dict[str, Any]]:
    """What each way to treat overlong rows keeps, beside the most that any keeps, with a link to a job that does so."""
    most_rows = tokens["rows"]
    most_tokens = max(choice["trained_tokens"] for choice in tokens["choices"]) or 1
    return [
        {
            **choice,
            "rows_share": choice["rows"] / most_rows,
            "tokens_share": choice["trained_tokens"] / most_tokens,
            "query": urlencode(_job_values(report, tokens, dataset, choice["overlong_rows"])),
        }
        for choice in tokens["choices"]
    ]


def _job_values(report: Report, tokens: Tokens, dataset: str, overlong_rows: str) -> dict[str, Any]:
    values = {"base_model": tokens["model"], "dataset": dataset, "task": tokens["task"]}
    split = report["split"]
    held_out = {name: split[name] for name in ("eval_fraction", "eval_max_rows")} if split else {}
    return {**values, "max_length": tokens["max_length"], "overlong_rows": overlong_rows, **held_out}
