"""Names in `rank_pattern`, as expressions that are matched in no time: a plan is made while someone waits for it."""

from __future__ import annotations

import re
from functools import lru_cache

from app.core.errors import Fault, InvalidInput

_SET_ASIDE = re.compile(r"\\.|\[\^?\]?[^\]]*\]|\(\?")  # escapes, sets of characters, and what opens a special group
_REPEAT = re.compile(r"[*+?{]")
_REPEATED_GROUP = re.compile(r"\)[*+?{]")
_MOST_REPEATS = 3  # each multiplies the ways to match a name by its length


@lru_cache(maxsize=256)
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Matches a module's whole name, or its end from a dot on, as peft does.

    Raises: InvalidInput at `rank_pattern` for what could take for ever to match, and what peft cannot compile.
    """
    plain = _SET_ASIDE.sub("", pattern)
    if _REPEATED_GROUP.search(plain) or len(_REPEAT.findall(plain)) > _MOST_REPEATS:
        message = f"{pattern:.80} cannot be planned: a group is repeated in it, or there are many repetitions"
        advice = f"Write it with at most {_MOST_REPEATS} of * + ? {{}}, none of them behind a group."
        raise InvalidInput([Fault("rank_pattern", message, advice)])
    try:
        return re.compile(rf"(.*\.)?({pattern})$")
    except re.error as error:
        raise InvalidInput(
            f"{pattern:.80} cannot be used inside of peft's own: {error}", field="rank_pattern"
        ) from None
