"""Values of a spec as they are typed and read."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.jobs.shown import in_words, read_lines, show, show_field, show_lines, typed


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""), (True, "true"), (5e-6, "5e-06"), (2e-4, "0.0002"), (3, "3"), ("auto", "auto"),
        (["a", "b"], "a, b"), ({"q_proj": 4.0}, "q_proj: 4"),
    ],
)  # fmt: skip
def test_a_value_is_shown_as_the_form_takes_it(value: Any, text: str) -> None:
    assert show(value) == text


def test_values_together_are_spelt_for_fields_and_for_a_yaml() -> None:
    fix = {"max_steps": None, "gradient_checkpointing": True, "learning_rate": 2e-5}
    assert typed(fix) == {"max_steps": "", "gradient_checkpointing": "true", "learning_rate": "2e-05"}
    assert in_words(fix) == "max_steps: null, gradient_checkpointing: true, learning_rate: 2e-05"


@pytest.mark.parametrize(
    ("texts", "typed"),
    [
        (["a, b", "c"], "a, b\nc"),
        (["one\ntwo"], "one\\ntwo"),
        (["a \\n b", "C:\\x\\"], "a \\\\n b\nC:\\\\x\\\\"),
        ([], ""),
    ],
)
def test_prompts_are_typed_one_a_line(texts: list[str], typed: str) -> None:
    assert show_lines(texts) == typed
    assert read_lines(typed) == texts
    assert show_field("sample_prompts", texts) == typed


def test_empty_lines_are_no_prompts() -> None:
    assert read_lines(" a \n\n  \n b") == ["a", "b"]
    assert show_field("sample_prompts", "as typed,") == "as typed,"
