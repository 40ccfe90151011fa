"""YAML in which a key that stands twice in a mapping is an error, where PyYAML silently takes the last."""

from __future__ import annotations

from typing import Any

import yaml


class _StrictLoader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if (key.tag, key.value) in seen:
                problem = f"the key {key.value!r} stands twice"
                raise yaml.constructor.ConstructorError(
                    "while reading a mapping", node.start_mark, problem, key.start_mark
                )
            seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def load_yaml(text: str) -> Any:
    """Plain values of a YAML document. Raises: yaml.YAMLError; ValueError and RecursionError as PyYAML does."""
    return yaml.load(text, Loader=_StrictLoader)
