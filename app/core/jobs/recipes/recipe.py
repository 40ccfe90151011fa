"""A training file of another program as a spec's values, with an account of every one of its keys."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from app.core.errors import Fault
from app.core.jobs.shown import show

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlist, _SHORT.maxdict = 3, 80, 80, 8, 8


@dataclass(frozen=True, slots=True)
class Line:
    """One key of the file (or one field of the spec), its value as text, and what became of it."""

    key: str
    value: str
    note: str


@dataclass(slots=True)
class Recipe:
    """`values` are a TrainingSpec's, not yet checked. `faults` are values without an equivalent, each at the field that
    it would have decided; with one of them nothing is queued."""

    program: str
    values: dict[str, Any] = field(default_factory=dict)
    mapped: list[Line] = field(default_factory=list)
    assumed: list[Line] = field(default_factory=list)
    left_out: list[Line] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)  # keys that hold nothing, or are off: nothing to take over
    faults: list[Fault] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As the API and the command show it."""
        lines = {
            name: [{"key": line.key, "value": line.value, "note": line.note} for line in getattr(self, name)]
            for name in ("mapped", "assumed", "left_out")
        }
        faults = [fault.to_json() for fault in self.faults]
        return {"program": self.program, "values": self.values, **lines, "empty": self.empty, "faults": faults}


class Draft:
    """Fills a recipe: each key is taken once, and what nobody took is left out with a reason."""

    def __init__(self, program: str, given: Mapping[str, Any]) -> None:
        self.recipe = Recipe(program)
        self._given = dict(given)

    def take(self, key: str) -> Any:
        """The key's value, which is now accounted for; None where the file has none."""
        value = self._given.pop(key, None)
        if value is None or value == "":
            return None
        return value

    def look(self, key: str) -> Any:
        """The key's value, which stays to be taken."""
        return self._given.get(key)

    def has(self, key: str) -> bool:
        """Whether the file gives the key a value."""
        return self._given.get(key) not in (None, "")

    def put(self, key: str, value: Any, target: str, into: Any, note: str = "") -> None:
        """Key and value became the spec's `target`, which is `into` now."""
        self.recipe.values[target] = into
        told = f"{target}: {show(into) or 'null'}" + (f" ({note})" if note else "")
        self.recipe.mapped.append(Line(key, short(value), told))

    def rename(self, names: Mapping[str, str]) -> None:
        """Keys that mean just what the spec's field means, and whose value is spelled alike."""
        for key, target in names.items():
            value = self.take(key)
            if value is not None:
                self.put(key, value, target, _numeric(value))

    def choose(self, key: str, target: str, choices: Mapping[Any, Any], refusal: str) -> None:
        """A key whose values are the spec's under other names; another value is refused."""
        value = self.take(key)
        if value is None:
            return
        if isinstance(value, (str, int)) and value in choices:
            self.put(key, value, target, choices[value])
        else:
            self.refuse(key, value, target, refusal)

    def assume(self, target: str, value: Any, why: str) -> None:
        """What the file does not say, and the other program does without being told."""
        if target not in self.recipe.values:
            self.recipe.values[target] = value
            self.recipe.assumed.append(Line(target, show(value) or "null", why))

    def leave(self, key: str, value: Any, why: str) -> None:
        """The training goes on without it."""
        self.recipe.left_out.append(Line(key, short(value), why))

    def refuse(self, key: str, value: Any, target: str, why: str) -> None:
        """There is no equivalent, and without it it would be another training."""
        message = f"{self.recipe.program}'s {key}: {short(value)} has no equivalent here"
        self.recipe.faults.append(Fault(target, message, why))

    def finish(self, reasons: Callable[[str], str]) -> Recipe:
        """Account for all keys that were not taken; `reasons` says why a key is not."""
        for key, value in self._rest():
            if value in (None, False, "") or value in ([], {}):
                self.recipe.empty.append(key)
            else:
                self.leave(key, value, reasons(key))
        return self.recipe

    def _rest(self) -> Iterator[tuple[str, Any]]:
        while self._given:
            key = next(iter(self._given))
            yield key, self._given.pop(key)


def _numeric(value: Any) -> Any:
    """The number in a text like `2e-4`, which YAML takes for text; else the value as it is."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def short(value: Any) -> str:
    """A value in a few words, however long or deep it is."""
    return show(value) if isinstance(value, (bool, int, float)) else _SHORT.repr(value).strip("'\"")
