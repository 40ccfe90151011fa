"""A chat template in Ollama's language: only where it says the same, turn by turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jinja2 import Template

from worker.exports.modelfile import Chat, find_turns

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WITH_DEFAULT = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}" + CHATML
)
LLAMA3 = (
    "{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim "
    "+ '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MERGED_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {% if loop.index0 == 1 and messages[0]['role'] == "
    "'system' %}{{ messages[0]['content'] }}\n\n{% endif %}{{ m['content'] }} [/INST]{% elif m['role'] == 'assistant' "
    "%} {{ m['content'] }}</s>{% endif %}{% endfor %}"
)


def render_of(template: str) -> Any:
    compiled = Template(template, keep_trailing_newline=True)

    def render(chat: Chat, *, ask: bool) -> str:
        return compiled.render(messages=chat, add_generation_prompt=ask)

    return render


@pytest.mark.parametrize("template", [CHATML, WITH_DEFAULT, LLAMA3])
def test_a_chat_is_rendered_the_same(template: str) -> None:
    render = render_of(template)
    turns = find_turns(render)
    assert turns is not None
    chat = [{"role": role, "content": f"words of {role}"} for role in ("system", "user", "assistant", "user")]
    for each, ask in ((chat, True), (chat[1:], True), (chat[:3], False), (chat[1:2], True), (chat * 2, True)):
        assert turns.render(each, ask=ask) == render(each, ask=ask)


def test_the_default_system_message_becomes_the_modelfile_s() -> None:
    turns = find_turns(render_of(WITH_DEFAULT))
    assert turns is not None
    assert turns.default_system == "Be kind."
    assert find_turns(render_of(CHATML)).default_system is None  # type: ignore[union-attr]


def test_line_ends_of_the_template_stay() -> None:
    turns = find_turns(render_of(CHATML))
    assert turns is not None
    go = turns.to_go()
    assert "{{-" not in go
    assert "-}}" not in go
    assert go.endswith("{{ end }}{{ end }}<|im_start|>assistant\n")


LAST_ONLY = CHATML.replace("{% for m in messages %}", "{% for m in messages[-2:] %}")
COUNTED = CHATML.replace("m['role'] + '\n'", "m['role'] + loop.index | string + '\n'")
UPPER = CHATML.replace("m['content']", "m['content'] | upper")
BRACES = CHATML.replace("<|im_end|>", "{{ '{{' }}")


@pytest.mark.parametrize("template", [MERGED_SYSTEM, LAST_ONLY, COUNTED, UPPER])
def test_a_template_that_does_more_than_that_is_not_carried_over(template: str, tmp_path: Path) -> None:
    assert find_turns(render_of(template)) is None
