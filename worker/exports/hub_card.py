"""The model card of what is uploaded: the artifact's own, with only such metadata as the hub takes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

CARD = "README.md"
_HEAD = re.compile(r"\A---\n(?P<head>.*?)^---[ \t]*$", re.DOTALL | re.MULTILINE)
_BASE = re.compile(r"^base_model(?:_relation)?:.*\n(?:^[ \t-].*\n)*|^- base_model:.*\n", re.MULTILINE)
_NEW = """---
{base}{head}
---

# {name}

{what}
"""
_KINDS = {  # metadata and a sentence
    "gguf": ("tags: [gguf]", "GGUF, made with Loradeck, for llama.cpp and Ollama: `ollama create NAME -f Modelfile`."),
    "adapter": ("library_name: peft\ntags: [lora]", "A LoRA adapter, for peft."),
    "model": ("library_name: transformers", "Made with Loradeck."),
}


def make_card(payload: Mapping[str, Any], card: str | None) -> str:
    """The card as it is uploaded. Payload: base_hub_id, kind, name.

    `base_model` is what the hub links to: a name that a model was registered under here would lead to somebody else's
    model, or to none, and a card that names a path is refused.
    """
    hub_id = payload["base_hub_id"]
    if card is None:
        base = f"base_model: {hub_id}\n" if hub_id else ""
        metadata, what = _KINDS.get(payload["kind"], _KINDS["model"])
        return _NEW.format(base=base, head=metadata, name=payload["name"], what=what)
    head = _HEAD.match(card)
    if head is None or hub_id:
        return card
    return f"---\n{_BASE.sub('', head['head'])}---{card[head.end() :]}"
