"""Text is split as the GGUF says: numbers become the tokens that the model was trained on."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from app.core.exports.gguf_rules import pre_tokenizer_name, read_object
from tests.worker.base_models.tiny_gguf import write_gguf
from tests.worker.tiny import CHAT_TEMPLATE, make_context, make_model
from worker.base_models.gguf import STAGES, convert_gguf
from worker.base_models.stages import Stages

pytestmark = pytest.mark.model

_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
WAYS = {
    "smollm": [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)],
    "llama-bpe": [
        pre_tokenizers.Split(Regex(_LETTERS + r"\p{N}{1,3}" + _REST), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ],
    "qwen2": [
        pre_tokenizers.Split(Regex(_LETTERS + r"\p{N}" + _REST), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ],
    "gpt-2": [pre_tokenizers.ByteLevel(add_prefix_space=False)],
}
TEXTS = ["In 2024, 1234567 and 3.14", "a  2\n   15. b", "x10y 1,000,000", "\t7 \n\n 8  ", "don't 42's"]


def _original(way: str) -> PreTrainedTokenizerFast:
    """As its maker has it: the merges are those of text that is split in this way."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(WAYS[way])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*TEXTS * 20, "  2 " * 50, "1234567 100 2024 " * 20], trainer)
    names = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<|endoftext|>", chat_template=CHAT_TEMPLATE, **names
    )


def _convert(tokenizer: PreTrainedTokenizerFast, folder: Path, pre: str) -> Path:
    file = write_gguf(folder / "tiny.gguf", make_model(tokenizer), tokenizer, pre=pre)
    (folder / "out").mkdir()
    convert_gguf(file, folder / "out", Stages(make_context(folder / "job", "import", {}), STAGES))
    return folder / "out"


@pytest.mark.parametrize("way", WAYS)
def test_text_becomes_the_tokens_of_the_original(way: str, tmp_path: Path) -> None:
    original = _original(way)
    folder = _convert(original, tmp_path, way)
    reloaded = AutoTokenizer.from_pretrained(folder)
    assert [reloaded(text)["input_ids"] for text in TEXTS] == [original(text)["input_ids"] for text in TEXTS]
    assert pre_tokenizer_name(read_object(folder / "tokenizer.json")) == way


def test_numbers_would_be_other_tokens_otherwise(tmp_path: Path) -> None:
    """What the test above would miss if every way came to the same tokens."""
    ids = {json.dumps([_original("smollm")(text)["input_ids"] for text in TEXTS])}
    as_gpt2 = _original("smollm")
    as_gpt2.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(WAYS["gpt-2"])
    assert json.dumps([as_gpt2(text)["input_ids"] for text in TEXTS]) not in ids


def test_a_way_that_is_not_known_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "worker.base_models.gguf_tokenizer"):
        _convert(_original("gpt-2"), tmp_path, "deepseek-llm")
    assert "splits text as deepseek-llm does, which is not known here" in caplog.text
