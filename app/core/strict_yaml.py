"""YAML without its traps: a key that stands twice, aliases that grow a thousandfold, texts of any size."""

from __future__ import annotations

from typing import Any

import yaml

MOST_CHARACTERS = 256 * 1024
_MOST_ALIASES = 64


class _StrictLoader(yaml.SafeLoader):
    _aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """An alias of a list or a mapping is refused: a few lines of them would be read as millions of values."""
        aliased = self.check_event(yaml.AliasEvent)
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        node = super().compose_node(parent, index)
        self._aliases += aliased
        if aliased and (not isinstance(node, yaml.ScalarNode) or self._aliases > _MOST_ALIASES):
            problem = "an alias of a list or a mapping" if self._aliases <= _MOST_ALIASES else "too many aliases"
            raise yaml.composer.ComposerError(None, None, f"{problem}; write the values out", mark)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A key that stands twice is an error, where PyYAML silently takes the last."""
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
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"it holds {len(text):,} characters, and {MOST_CHARACTERS:,} is the most that is read")
    return yaml.load(text, Loader=_StrictLoader)
