"""How a GGUF's tokenizer splits text before it merges: transformers reads every one as GPT-2's, numbers included."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from tokenizers import Regex, pre_tokenizers

from app.core.exports.gguf_rules import split_expression

logger = logging.getLogger(__name__)

_PRE = "tokenizer.ggml.pre"
_AS_READ = ("gpt-2", "gpt2", "default")


def restore_splitting(tokenizer: Any, metadata: Mapping[str, Any]) -> None:
    """Have a byte-level BPE tokenizer split text as the file says; of a way that is not known the log tells.

    Source: llama.cpp's src/llama-vocab.cpp, and the tokenizer.json of the models that its names stand for.
    """
    name = str(metadata.get(_PRE, "default"))
    if metadata.get("tokenizer.ggml.model") != "gpt2" or name in _AS_READ:
        return
    expression = split_expression(name)
    if name == "smollm":  # each digit is a token of its own, whatever stands before it
        steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    elif expression is not None:
        split = pre_tokenizers.Split(Regex(expression), behavior="isolated")
        steps = [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    else:
        logger.warning("its tokenizer splits text as %s does, which is not known here: it is read as GPT-2's", name)
        return
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
