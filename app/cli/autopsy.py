"""How the command prints what a job that ran out of memory can change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.cli.output import print_fields

_SHOWN = 3
_FITS = {True: ", predicted to fit", False: ", not enough by itself", None: ""}


def print_changes(job: int, autopsy: Mapping[str, Any], shown: int = _SHOWN) -> None:
    """The first changes, each with its predicted peak, and the command that queues the job with one."""
    changes = [_printed(change) for change in autopsy["changes"]]
    if not changes:
        return
    more = f"loradeck jobs autopsy {job}" if len(changes) > shown else None
    fields = {"changes": changes[:shown], "all_changes": more, "to_apply": f"loradeck jobs change {job} KEY"}
    print_fields(fields, fields)


def _printed(change: Mapping[str, Any]) -> dict[str, str]:
    peak = "unknown" if change["peak_bytes"] is None else _size(change["peak_bytes"])
    return {
        "key": change["key"],
        "title": change["title"],
        "peak": peak + _FITS[change["fits"]],
        "effect": change["effect"],
    }


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
