"""Which tokens are learned under the chat templates of published models."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tokenizers import processors
from transformers import AddedToken
from transformers.utils import chat_template_utils

from tests.worker.encoders import encode_turns
from tests.worker.tiny import make_model, make_tokenizer
from worker.inference.prompts import encode_conversation, stop_token_ids
from worker.training.data import IGNORED_LABEL, EncodedRow, TemplateMismatch
from worker.training.rendering import render

pytestmark = pytest.mark.model

TEMPLATES = Path(__file__).parents[2] / "fixtures" / "chat_templates"


class Family(NamedTuple):
    """A model's special tokens. end: what the template puts behind an answer. bos: what it puts first, if anything.

    Each template in the fixtures renders as the published one does, with system and tool turns, without tools to call.
    """

    end: str
    eos: str
    pad: str
    bos: str | None
    others: tuple[str, ...] = ()
    before: str = ""  # what the template puts before an answer without reasoning, which generation must bring forth
    system: bool = True
    split: bool = False  # earlier answers are rendered differently once another turn follows


_HEADER = ("<|start_header_id|>", "<|end_header_id|>")
FAMILIES = {
    "llama-3": Family("<|eot_id|>", "<|end_of_text|>", "<|end_of_text|>", "<|begin_of_text|>", _HEADER),
    "llama-3.2": Family("<|eot_id|>", "<|eot_id|>", "<|eot_id|>", "<|begin_of_text|>", _HEADER),
    "qwen2.5": Family("<|im_end|>", "<|im_end|>", "<|endoftext|>", None),
    "qwen3": Family("<|im_end|>", "<|im_end|>", "<|endoftext|>", None, before="<think>\n\n</think>\n\n", split=True),
    "mistral-v0.3": Family("</s>", "</s>", "</s>", "<s>", ("[INST]", "[/INST]"), before=" "),
    "gemma-2": Family("<end_of_turn>", "<eos>", "<pad>", "<bos>", ("<start_of_turn>",), system=False),
    "gemma-3": Family("<end_of_turn>", "<eos>", "<pad>", "<bos>", ("<start_of_turn>",)),
    "phi-3": Family(
        "<|end|>\n<|endoftext|>",
        "<|endoftext|>",
        "<|endoftext|>",
        None,
        ("<|end|>", "<|user|>", "<|assistant|>", "<|system|>"),
        split=True,
    ),
    "phi-4": Family("<|im_end|>", "<|im_end|>", "<|endoftext|>", None, ("<|im_sep|>",)),
    "r1-distill": Family(
        "<|end_of_sentence|>",
        "<|end_of_sentence|>",
        "<|end_of_sentence|>",
        "<|begin_of_sentence|>",
        ("<|User|>", "<|Assistant|>"),
        before="\n</think>\n\n",
        split=True,
    ),
    "chatml": Family("<|im_end|>", "<|im_end|>", "<|im_end|>", None),
    "smollm2": Family("<|im_end|>", "<|im_end|>", "<|im_end|>", None),
}
SYSTEM = {"role": "system", "content": "Be kind."}
ONE = [{"role": "user", "content": "What is box 1?"}, {"role": "assistant", "content": "Box 1 is red."}]
TWO = [*ONE, {"role": "user", "content": "And box 2?"}, {"role": "assistant", "content": "Box 2 is blue."}]


def family_tokenizer(name: str) -> Any:
    """The tiny byte-level tokenizer with a family's template and special tokens, which adds a BOS if left to itself."""
    family = FAMILIES[name]
    tokenizer = make_tokenizer(chat_template=(TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8").rstrip("\n"))
    ends = set() if name == "phi-3" else {family.end}  # whose end is two tokens, both named elsewhere
    marks = {family.eos, family.pad, family.bos, *family.others} | ends
    tokenizer.add_tokens([AddedToken(mark, special=True, normalized=False) for mark in sorted(filter(None, marks))])
    tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token = family.eos, family.pad, family.bos
    if family.bos:
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{family.bos} $A", special_tokens=[(family.bos, tokenizer.bos_token_id)]
        )
    return tokenizer


def learned(tokenizer: Any, row: EncodedRow) -> str:
    return str(tokenizer.decode([label for label in row.labels if label != IGNORED_LABEL]))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("system", [False, True])
def test_single_answer_is_learned_with_its_end_of_turn(name: str, system: bool) -> None:
    family, tokenizer = FAMILIES[name], family_tokenizer(name)
    if system and not family.system:
        with pytest.raises(TemplateMismatch, match="System role not supported"):
            encode_turns(tokenizer, [SYSTEM, *ONE], 1000)
        return
    (row,) = encode_turns(tokenizer, [SYSTEM, *ONE] if system else ONE, 1000)
    assert learned(tokenizer, row) == f"{family.before}Box 1 is red.{family.end}"
    assert tokenizer.decode(row.input_ids).count("Be kind.") == system


@pytest.mark.parametrize("name", FAMILIES)
def test_every_answer_of_a_conversation_is_learned_once(name: str) -> None:
    family, tokenizer = FAMILIES[name], family_tokenizer(name)
    rows = encode_turns(tokenizer, TWO, 1000)
    answers = [f"{family.before}Box {text}.{family.end}" for text in ("1 is red", "2 is blue")]
    assert [learned(tokenizer, row) for row in rows] == (answers if family.split else ["".join(answers)])


def test_a_system_message_that_moves_into_the_last_turn_is_where_generation_puts_it() -> None:
    """Mistral's template renders it nowhere once an answer follows."""
    tokenizer = family_tokenizer("mistral-v0.3")
    rows = encode_turns(tokenizer, [SYSTEM, *TWO], 1000)
    assert [tokenizer.decode(row.input_ids) for row in rows] == [
        "<s>[INST] Be kind.\n\nWhat is box 1?[/INST] Box 1 is red.</s>",
        "<s>[INST] What is box 1?[/INST] Box 1 is red.</s>[INST] Be kind.\n\nAnd box 2?[/INST] Box 2 is blue.</s>",
    ]
    assert [learned(tokenizer, row) for row in rows] == [" Box 1 is red.</s>", " Box 2 is blue.</s>"]
    prompt = encode_conversation(tokenizer, [SYSTEM, *TWO[:3]])[0].tolist()
    assert rows[1].input_ids[: len(prompt)] == prompt


REASONED = "<think>\nLook at it.\n</think>\n\nBox 1 is red."


@pytest.mark.parametrize("system", [False, True])
def test_reasoning_that_the_template_opens_and_leaves_out_is_learned(system: bool) -> None:
    """The prompt ends within the reasoning, of which a finished answer shows nothing."""
    tokenizer = family_tokenizer("r1-distill")
    messages = [*([SYSTEM] if system else []), ONE[0], {"role": "assistant", "content": REASONED}]
    (row,) = encode_turns(tokenizer, messages, 1000)
    assert learned(tokenizer, row) == "Look at it.\n</think>\n\nBox 1 is red.<|end_of_sentence|>"
    before = f"<|begin_of_sentence|>{'Be kind.' if system else ''}<|User|>What is box 1?<|Assistant|><think>\n"
    prompt = encode_conversation(tokenizer, messages[:-1])[0].tolist()
    assert (tokenizer.decode(prompt), row.input_ids[: len(prompt)]) == (before, prompt)


def test_a_later_answer_is_learned_behind_a_history_without_its_reasoning() -> None:
    tokenizer = family_tokenizer("r1-distill")
    messages = [ONE[0], {"role": "assistant", "content": REASONED}, *TWO[2:]]
    first, second = encode_turns(tokenizer, messages, 1000)
    assert learned(tokenizer, first).startswith("Look at it.")
    assert learned(tokenizer, second) == "\n</think>\n\nBox 2 is blue.<|end_of_sentence|>"
    assert "Look at it." not in tokenizer.decode(second.input_ids)


def test_a_template_that_opens_the_reasoning_and_shows_another_is_still_refused() -> None:
    tokenizer = family_tokenizer("r1-distill")
    tokenizer.chat_template = tokenizer.chat_template.replace("message['content'].split('</think>')[-1]", "'<think>hm'")
    with pytest.raises(TemplateMismatch):
        encode_turns(tokenizer, ONE, 1000)


TOOL = [
    ONE[0],
    {"role": "assistant", "content": "look(1)"},
    {"role": "tool", "content": '{"colour": "red"}'},
    ONE[1],
]


@pytest.mark.parametrize("name", ["llama-3", "llama-3.2", "qwen2.5", "qwen3", "chatml", "smollm2"])
def test_calls_and_answers_around_a_tool_turn_are_learned_and_what_the_tool_says_is_not(name: str) -> None:
    family, tokenizer = FAMILIES[name], family_tokenizer(name)
    rows = encode_turns(tokenizer, TOOL, 1000)
    answers = [f"{family.before}{text}{family.end}" for text in ("look(1)", "Box 1 is red.")]
    assert "".join(learned(tokenizer, row) for row in rows) == "".join(answers)
    assert "colour" in tokenizer.decode(rows[-1].input_ids)


def test_a_turn_that_the_template_does_not_show_is_refused() -> None:
    with pytest.raises(TemplateMismatch, match="leaves out the tool turn"):
        encode_turns(family_tokenizer("phi-3"), TOOL, 1000)


def test_rows_and_prompts_are_the_same_on_any_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """Llama-3.2's template asks for the date; a run that goes on tomorrow, or is repeated, reads the same tokens."""

    class NewYear(datetime):
        @classmethod
        def now(cls, _zone: Any = None) -> NewYear:
            return cls(2031, 1, 1)

    tokenizer = family_tokenizer("llama-3.2")
    before = encode_turns(tokenizer, ONE, 1000)
    monkeypatch.setattr(chat_template_utils, "datetime", NewYear)
    assert encode_turns(tokenizer, ONE, 1000) == before
    prompt = tokenizer.decode(encode_conversation(tokenizer, ONE[:1])[0])
    assert tokenizer.decode(before[0].input_ids).startswith(prompt)
    assert "Today Date: 26 Jul 2024" in prompt


@pytest.mark.parametrize(
    "name", sorted(FAMILIES.keys() - {"r1-distill"})
)  # which opens the reasoning in the prompt alone
def test_ids_are_those_of_the_rendering_to_its_end_of_turn(name: str) -> None:
    tokenizer = family_tokenizer(name)
    row = encode_turns(tokenizer, TWO, 1000)[-1]
    assert tokenizer.decode(row.input_ids) == render(tokenizer, TWO, prompt=False)


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.bos])
def test_bos_comes_exactly_once_in_training_and_generation(name: str) -> None:
    tokenizer = family_tokenizer(name)
    assert tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id, "the tokenizer would add one of its own"
    (row,), prompt = encode_turns(tokenizer, ONE, 1000), encode_conversation(tokenizer, ONE[:1])[0].tolist()
    assert row.input_ids.count(tokenizer.bos_token_id) == prompt.count(tokenizer.bos_token_id) == 1
    assert row.input_ids[: len(prompt)] == prompt


@pytest.mark.parametrize("name", FAMILIES)
def test_generation_stops_at_the_token_that_was_learned(name: str) -> None:
    tokenizer = family_tokenizer(name)
    (row,) = encode_turns(tokenizer, ONE, 1000)
    last = [label for label in row.labels if label != IGNORED_LABEL][-1]
    assert last in stop_token_ids(make_model(tokenizer), tokenizer)
    assert row.labels.count(tokenizer.eos_token_id) == FAMILIES[name].end.count(tokenizer.eos_token)


def test_reasoning_is_learned_in_each_answer_and_left_out_of_history() -> None:
    tokenizer = family_tokenizer("qwen3")
    chat = [dict(turn) for turn in TWO]
    chat[1]["content"] = "<think>\nfirst thought\n</think>\n\nBox 1 is red."
    chat[3]["content"] = "<think>\nsecond thought\n</think>\n\nBox 2 is blue."
    first, second = encode_turns(tokenizer, chat, 1000)
    assert learned(tokenizer, first) == chat[1]["content"] + "<|im_end|>"
    assert learned(tokenizer, second) == chat[3]["content"] + "<|im_end|>"
    assert "first thought" not in tokenizer.decode(second.input_ids)
