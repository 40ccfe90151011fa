"""What an adapter's tensors say, by their names and shapes, and where its own configuration says something else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from app.core.adapters.fields import CONFIG

Shapes = Mapping[str, list[int]]

_PREFIX = "base_model.model."
_LORA = re.compile(r"(?P<module>.+)\.lora_(?P<side>A|B|embedding_A|embedding_B)(?:\.weight)?")


def lora_tensors(adapter: Shapes) -> Iterator[tuple[str, str, list[int]]]:
    """(module, side, shape) of each: the side is A (r, in), B (out, r), embedding_A (r, words) or embedding_B."""
    for name, shape in adapter.items():
        if match := _LORA.fullmatch(name.removeprefix(_PREFIX)):
            yield match["module"], match["side"], shape


def contradictions(adapter: Shapes, base: Shapes, config: Mapping[str, Any]) -> Iterator[str]:
    """Where peft would make other tensors of the configuration than there are."""
    yield from _other_ranks(adapter, config)
    yield from _halves(adapter)
    if isinstance(config.get("target_modules"), list):  # an expression is compared when the adapter is loaded
        yield from _other_modules(adapter, base, [str(name) for name in config["target_modules"]])


def _other_ranks(adapter: Shapes, config: Mapping[str, Any]) -> Iterator[str]:
    """A pattern's key is an expression. Source: peft.utils.other.get_pattern_key."""
    patterns: Mapping[str, int] = config.get("rank_pattern") or {}
    for module, side, shape in lora_tensors(adapter):
        if not side.endswith("A"):
            continue
        key = next((key for key in patterns if re.match(rf"(.*\.)?({key})$", module)), None)
        wanted = config.get("r") if key is None else patterns[key]
        if shape[0] != wanted:
            yield f"{module} has rank {shape[0]}, and {CONFIG} says {wanted}"


def _halves(adapter: Shapes) -> Iterator[str]:
    """Modules of which only one of the two matrices is there."""
    there = {(module, side) for module, side, _ in lora_tensors(adapter)}
    for module, side in sorted(there):
        other = side[:-1] + ("B" if side.endswith("A") else "A")
        if (module, other) not in there:
            yield f"{module} has lora_{side} and no lora_{other}"


def _other_modules(adapter: Shapes, base: Shapes, targets: list[str]) -> Iterator[str]:
    """Modules that no target names, and targets that have no tensor though the base has such a module."""
    modules = {module for module, _, _ in lora_tensors(adapter)}
    for module in sorted(modules):
        if not any(_is_named(module, target) for target in targets):
            yield f"it has {module}, which target_modules does not name"
    for target in targets:
        in_base = any(_is_named(name.removesuffix(".weight"), target) for name in base)
        if in_base and not any(_is_named(module, target) for module in modules):
            yield f"target_modules names {target}, for which it has nothing"


def _is_named(module: str, target: str) -> bool:
    return module == target or module.endswith(f".{target}")
