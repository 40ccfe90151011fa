"""Patterns of ranks: matched as peft matches them, and never for ever."""

from __future__ import annotations

import re

import pytest

from app.core.errors import InvalidInput
from app.core.jobs.spec import parse_spec
from app.core.planning.families import read_architecture
from app.core.planning.patterns import compile_pattern
from app.core.planning.trainable import count_trainable
from tests.core.planning.conftest import published

NAME = "model.layers.12.self_attn.q_proj"


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("q_proj", True),
        ("_proj", False),
        (r"layers\.(11|12)\..*q_proj", True),
        (r"layers\.\d+\.self_attn\.[kq]_proj", True),
        (r"layers\.[0-9]{2}\..*(?<!k)_proj", True),
        ("v_proj", False),
    ],
)
def test_a_name_is_matched_from_a_dot_on(pattern: str, matches: bool) -> None:
    assert bool(compile_pattern(pattern).match(NAME)) is matches
    assert bool(re.match(rf"(.*\.)?({pattern})$", NAME)) is matches


@pytest.mark.parametrize(
    "pattern",
    ["([a-z_.0-9]*)*X", "(?:a+)+", "(a|a){30}", "a?" * 30 + "a" * 30, ".*.*.*.*X", "(a?)?", "(?i)q_proj"],
)
def test_what_could_take_for_ever_is_refused_at_its_field(pattern: str) -> None:
    spec = parse_spec({"base_model": "m", "dataset": "d", "rank_pattern": {pattern: 8}})
    with pytest.raises(InvalidInput) as caught:
        count_trainable(read_architecture(published("llama-3-8b")), spec)
    assert [fault.field for fault in caught.value.faults] == ["rank_pattern"]
