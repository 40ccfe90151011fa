"""Which tokens are learned."""

from __future__ import annotations

from typing import Any

import pytest

from tests.worker.encoders import encode_turns
from tests.worker.tiny import ROWS, make_tokenizer
from worker.training.data import (
    IGNORED_LABEL,
    EncodedRow,
    TemplateMismatch,
    encode_row,
    ensure_chat_template,
)
from worker.training.reading import as_messages

pytestmark = pytest.mark.model

TWO_TURNS = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "What is box 1?"},
    {"role": "assistant", "content": "Box 1 is red."},
    {"role": "user", "content": "And box 2?"},
    {"role": "assistant", "content": "Box 2 is blue."},
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer()


def learned_text(tokenizer: Any, row: EncodedRow) -> str:
    return str(tokenizer.decode([label for label in row.labels if label != IGNORED_LABEL]))


def test_every_answer_is_learned_with_its_end_of_turn_and_nothing_else(tokenizer: Any) -> None:
    row = encode_row(tokenizer, TWO_TURNS, 1000)
    assert learned_text(tokenizer, row) == "Box 1 is red.<|im_end|>Box 2 is blue.<|im_end|>"


def test_an_answer_of_weight_0_is_shown_and_not_learned(tokenizer: Any) -> None:
    whole = encode_row(tokenizer, TWO_TURNS, 1000)
    (row,) = encode_turns(
        tokenizer, as_messages([*TWO_TURNS[:2], {**TWO_TURNS[2], "weight": "0"}, *TWO_TURNS[3:]]), 1000
    )
    assert learned_text(tokenizer, row) == "Box 2 is blue.<|im_end|>"
    assert row.input_ids == whole.input_ids


def test_end_of_turn_is_learned_although_it_is_the_padding_token(tokenizer: Any) -> None:
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    row = encode_row(tokenizer, ROWS[0], 1000)
    assert row.labels.count(tokenizer.eos_token_id) == 1
    assert row.input_ids.count(tokenizer.eos_token_id) == 3  # system and user turns end too, unlearned


def test_ids_are_those_of_the_whole_rendering(tokenizer: Any) -> None:
    text = tokenizer.apply_chat_template(TWO_TURNS, tokenize=False)
    assert encode_row(tokenizer, TWO_TURNS, 1000).input_ids == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_labels_equal_ids_where_they_are_learned(tokenizer: Any) -> None:
    row = encode_row(tokenizer, TWO_TURNS, 1000)
    assert all(label in (IGNORED_LABEL, token) for label, token in zip(row.labels, row.input_ids, strict=True))
    assert row.trained_tokens == sum(label != IGNORED_LABEL for label in row.labels) > 0


def test_a_turn_after_the_last_answer_is_left_out(tokenizer: Any) -> None:
    asked_again = [*TWO_TURNS, {"role": "user", "content": "And box 3?"}]
    assert encode_row(tokenizer, asked_again, 1000) == encode_row(tokenizer, TWO_TURNS, 1000)


def test_cut_from_the_end(tokenizer: Any) -> None:
    whole, cut = encode_row(tokenizer, TWO_TURNS, 1000), encode_row(tokenizer, TWO_TURNS, 40)
    assert cut.input_ids == whole.input_ids[:40]
    assert cut.labels == whole.labels[:40]
    assert (cut.truncated, whole.truncated) == (True, False)
    assert cut.total_tokens == len(whole.input_ids)


def test_answer_beyond_max_length_leaves_nothing_to_learn(tokenizer: Any) -> None:
    assert encode_row(tokenizer, ROWS[0], 10).trained_tokens == 0


def test_answer_that_starts_with_newlines_is_learned_as_it_is_generated(tokenizer: Any) -> None:
    """The template's last newline and the answer's first are one token where they are tokenized together."""
    chat = [{"role": "user", "content": "Box 1?"}, {"role": "assistant", "content": "\n\nBox 1 is red."}]
    prompt = tokenizer.apply_chat_template(chat[:1], tokenize=False, add_generation_prompt=True)
    prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    whole_ids = tokenizer(tokenizer.apply_chat_template(chat, tokenize=False), add_special_tokens=False)["input_ids"]
    assert whole_ids[: len(prompt_ids)] != prompt_ids, "the test needs a tokenizer that merges newlines"
    row = encode_row(tokenizer, chat, 1000)
    assert row.input_ids[: len(prompt_ids)] == prompt_ids
    assert learned_text(tokenizer, row) == "\n\nBox 1 is red.<|im_end|>"
    assert tokenizer.decode(row.input_ids) == tokenizer.decode(whole_ids)


def test_template_that_rewrites_earlier_turns_is_refused() -> None:
    """As templates do that drop the reasoning of all answers but the last."""
    rewriting = make_tokenizer(
        chat_template="{% for m in messages %}{{ m['role'] }}:{{ m['content'] if loop.last else 'gone' }}<|im_end|>"
        "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    )
    with pytest.raises(TemplateMismatch, match="renders a turn differently"):
        encode_row(rewriting, TWO_TURNS, 1000)


def test_an_answer_is_asked_for_as_it_is_rendered_or_refused() -> None:
    """A prompt that begins what no answer shows; only of reasoning it is known how it goes on."""
    opening = make_tokenizer(
        chat_template="{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|><plan>\n{% endif %}"
    )
    with pytest.raises(TemplateMismatch, match=r"otherwise than it asks for one: .* ends in '.*<plan>"):
        encode_row(opening, ROWS[0], 1000)


@pytest.mark.parametrize(
    "part",
    [
        "{% for piece in m['content'] %}{{ piece['text'] }}{% endfor %}",  # made for lists of texts and images
        "{{ m['content'].split('</think>')[-1] }}",
        "{{ m['content'][:9] }}",
    ],
)
def test_template_that_leaves_out_a_part_of_an_answer_is_refused(part: str) -> None:
    lossy = make_tokenizer(
        chat_template="{% for m in messages %}{{ m['role'] }}:{% if m['role'] == 'assistant' %}" + part + "{% else %}"
        "{{ m['content'] }}{% endif %}<|im_end|>{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    )
    row = [ROWS[0][0], {"role": "assistant", "content": "<think>\nBox 0?\n</think>\n\nBox 0 is red."}]
    with pytest.raises(TemplateMismatch, match="leaves out a part of the answer"):
        encode_row(lossy, row, 1000)


RUNNING_ON = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def test_an_answer_that_the_template_does_not_end_ends_with_the_end_of_sequence() -> None:
    """Else the model would never learn to stop. History stays as the template has it, so each answer stands alone."""
    tokenizer = make_tokenizer(chat_template=RUNNING_ON)
    first, second = encode_turns(tokenizer, TWO_TURNS, 1000)
    assert learned_text(tokenizer, first) == "Box 1 is red.<|im_end|>"
    assert learned_text(tokenizer, second) == "Box 2 is blue.<|im_end|>"
    history = tokenizer.apply_chat_template(TWO_TURNS[:4], tokenize=False, add_generation_prompt=True)
    assert tokenizer.decode(second.input_ids) == history + "Box 2 is blue.<|im_end|>"


def test_without_an_end_of_sequence_there_is_nothing_to_end_an_answer_with() -> None:
    tokenizer = make_tokenizer(chat_template=RUNNING_ON)
    tokenizer.eos_token = None
    assert learned_text(tokenizer, encode_row(tokenizer, ROWS[0], 1000)) == "Box 0 is red.\n\n"


def test_template_that_raises_is_refused_with_its_own_words() -> None:
    strict = make_tokenizer(chat_template="{{ raise_exception('roles must alternate') }}")
    with pytest.raises(TemplateMismatch, match="roles must alternate"):
        encode_row(strict, TWO_TURNS, 1000)


def test_row_without_an_answer_is_refused(tokenizer: Any) -> None:
    with pytest.raises(TemplateMismatch, match="no assistant message"):
        encode_row(tokenizer, TWO_TURNS[:2], 1000)


def test_chatml_stands_in_for_a_missing_template_and_ends_with_the_models_own_token() -> None:
    bare = make_tokenizer(chat_template=None)
    bare.eos_token = "<|endoftext|>"
    assert ensure_chat_template(bare)
    assert learned_text(bare, encode_row(bare, ROWS[0], 1000)) == "Box 0 is red.<|im_end|><|endoftext|>"


def test_a_template_that_exists_is_kept(tokenizer: Any) -> None:
    before = tokenizer.chat_template
    assert not ensure_chat_template(tokenizer)
    assert tokenizer.chat_template == before
