"""Tell whose training file a YAML is, and read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from app.core.errors import InvalidInput
from app.core.jobs.recipes import axolotl, llama_factory
from app.core.jobs.recipes.recipe import Recipe
from app.core.jobs.spec import TrainingSpec, read_yaml

LORADECK = "loradeck"
PROGRAMS: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], Recipe], frozenset[str]]] = {
    "axolotl": (axolotl.PROGRAM, axolotl.read_axolotl, axolotl.TELLING),
    "llama-factory": (llama_factory.PROGRAM, llama_factory.read_llama_factory, llama_factory.TELLING),
}
SOURCES = ("auto", LORADECK, *PROGRAMS)
_ENOUGH = 2  # telling keys, unless they are more of a job's own


def read_recipe(text: str, source: str = "auto") -> Recipe:
    """A YAML of Loradeck's own, of axolotl or of LLaMA-Factory. Raises: InvalidInput where it is no YAML mapping."""
    if source not in SOURCES:
        raise InvalidInput(f"{source!r:.60} is none of {', '.join(SOURCES)}", field="source")
    given = read_yaml(text)
    key = recognise(given) if source == "auto" else source
    return PROGRAMS[key][1](given) if key in PROGRAMS else Recipe("Loradeck", dict(given))


def recognise(given: Mapping[str, Any]) -> str:
    """By keys that only one program has; a file with a job's own keys is Loradeck's."""
    own = len(given.keys() & TrainingSpec.model_fields)
    counts = {
        key: len(given.keys() & (telling - TrainingSpec.model_fields.keys()))
        for key, (_, _, telling) in PROGRAMS.items()
    }
    best = max(counts, key=lambda key: counts[key])
    return best if counts[best] >= _ENOUGH or counts[best] > own else LORADECK
