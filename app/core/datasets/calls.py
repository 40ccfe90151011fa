"""An answer's calls of tools, as text: training learns text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from app.core.datasets.faults import RowFault
from app.core.datasets.report import ProblemKind


def with_calls(content: Any, calls: Any, place: str) -> Any:
    """The turn's text, then each call as a line of JSON. Raises: RowFault."""
    if not isinstance(calls, list):
        raise RowFault(f"{place}.tool_calls", "is not a list of {function: {name, arguments}}", ProblemKind.WRONG_TYPE)
    lines = [_call(call, f"{place}.tool_calls[{index}]") for index, call in enumerate(calls)]
    return "\n".join(([content] if isinstance(content, str) and content.strip() else []) + lines)


def _call(call: Any, place: str) -> str:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise RowFault(place, "is not {function: {name, arguments}}", ProblemKind.WRONG_TYPE)
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        arguments = _parsed(arguments, f"{place}.function.arguments")
    return json.dumps({"name": function["name"], "arguments": arguments}, ensure_ascii=False)


def _parsed(arguments: str, place: str) -> Any:
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError) as error:
        raise RowFault(place, f"is not valid JSON: {error}", ProblemKind.WRONG_TYPE) from error
