"""What a token spells, whatever its tokenizer writes in its vocabulary."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from tests.worker.tiny import make_tokenizer
from worker.datasets.token_texts import TokenTexts

pytestmark = pytest.mark.model

ODD = "Box 1\tis  red.\n\n⚓ naïve <|im_end|> <0xE2> \N{GRINNING FACE}"


@pytest.fixture(scope="module")
def byte_level() -> Any:
    return make_tokenizer()


def sentence_piece() -> Any:
    """As Llama 2's: spaces are `▁`, one stands before the text, and what is unknown is spelled byte by byte."""
    vocabulary = {"<unk>": 0, "▁red": 1, "▁": 2, "▁box": 3, **{f"<0x{byte:02X}>": 4 + byte for byte in range(256)}}
    merges = [("▁", "red"), ("▁", "box"), ("r", "ed"), ("e", "d"), ("b", "ox"), ("o", "x")]
    for piece in ("red", "ed", "box", "ox", *"redbox"):
        vocabulary[piece] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


@pytest.mark.parametrize("text", [ODD, " leading", "trailing \n", "\x00\u202e\u200b"])
def test_texts_side_by_side_spell_the_text_byte_for_byte(byte_level: Any, text: str) -> None:
    texts, ids = TokenTexts(byte_level), byte_level(text, add_special_tokens=False)["input_ids"]
    assert texts.join(ids) == text
    assert texts.spells(ids)


def test_whole_characters_are_shown_and_bytes_of_others_by_their_numbers(byte_level: Any) -> None:
    texts = TokenTexts(byte_level)
    ids = byte_level("a⚓<|im_end|>\n", add_special_tokens=False)["input_ids"]
    assert [texts.text(each) for each in ids] == ["a", "<0xE2>", "<0x9A>", "<0x93>", "<|im_end|>", "\n"]
    assert [each in texts.special for each in ids] == [False] * 4 + [True, False]


def test_sentencepiece_signs_are_spaces_and_its_byte_tokens_bytes() -> None:
    tokenizer = sentence_piece()
    texts, ids = TokenTexts(tokenizer), tokenizer("red box é", add_special_tokens=False)["input_ids"]
    assert [texts.text(each) for each in ids] == [" red", " box", " ", "<0xC3>", "<0xA9>"]
    assert texts.join(ids) == " red box é"
    assert texts.spells(ids)


def test_texts_that_do_not_spell_what_is_decoded_are_told(byte_level: Any) -> None:
    texts, ids = TokenTexts(byte_level), byte_level("red", add_special_tokens=False)["input_ids"]
    texts._bytes[ids[0]] = b"blue"
    assert not texts.spells(ids)


def test_a_tokenizer_of_neither_kind_is_asked_for_each_token_alone() -> None:
    words = Tokenizer(models.WordLevel({"red": 0, "box": 1}, unk_token="red"))
    texts = TokenTexts(PreTrainedTokenizerFast(tokenizer_object=words))
    assert [texts.text(0), texts.text(1)] == ["red", "box"]
    assert not texts.spells([0, 1])  # it decodes to words with spaces between them


def test_an_added_token_is_spelled_as_it_was_added() -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["naïve"])  # each of its letters also stands for a byte
    texts, ids = TokenTexts(tokenizer), tokenizer("a naïve", add_special_tokens=False)["input_ids"]
    assert texts.text(ids[-1]) == "naïve"
    assert texts.join(ids) == "a naïve"
    assert not texts.special & set(ids)
