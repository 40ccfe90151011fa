"""A byte-level BPE tokenizer as GGUF has it, read from tokenizer.json and its neighbours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGUFWriter, TokenType
from tokenizers import Tokenizer

from app.core.exports.gguf_rules import pre_tokenizer_name, read_object

_SPECIAL_LOOK = re.compile(r"<\|.*\|>")
_ROLES = ("bos", "eos", "unk", "pad")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens by id, each with its type; merges as `left right`; ids by role."""

    tokens: list[str]
    types: list[int]
    merges: list[str]
    ids: dict[str, int]
    end_of_turn: int | None
    adds_bos: bool
    pre: str
    chat_template: str | None


def read_vocabulary(folder: Path, size: int) -> Vocabulary:
    """Of a model folder whose embedding has `size` rows; rows without a token are named and marked unused."""
    tokenizer = read_object(folder / "tokenizer.json")
    settings = read_object(folder / "tokenizer_config.json")
    by_text = {**tokenizer["model"]["vocab"], **{each["content"]: each["id"] for each in tokenizer["added_tokens"]}}
    texts, types = [f"[PAD{number}]" for number in range(size)], [int(TokenType.UNUSED)] * size
    for text, number in tokenizer["model"]["vocab"].items():
        texts[number], types[number] = text, int(TokenType.NORMAL)
    for each in tokenizer["added_tokens"]:
        control = each["special"] or _SPECIAL_LOOK.fullmatch(each["content"])
        texts[each["id"]] = each["content"]
        types[each["id"]] = int(TokenType.CONTROL if control else TokenType.USER_DEFINED)
    named = {role: by_text.get(_text_of(settings.get(f"{role}_token"))) for role in _ROLES}
    ids = {role: number for role, number in named.items() if number is not None}
    return Vocabulary(
        tokens=texts,
        types=types,
        merges=[each if isinstance(each, str) else " ".join(each) for each in tokenizer["model"]["merges"]],
        ids=ids,
        end_of_turn=_end_of_turn(folder, ids.get("eos")),
        adds_bos=_adds(folder / "tokenizer.json", ids.get("bos")),
        pre=pre_tokenizer_name(tokenizer) or "default",
        chat_template=_chat_template(folder, settings),
    )


def write_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary) -> None:
    """All keys below `tokenizer.`."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    for role, number in vocabulary.ids.items():
        getattr(writer, f"add_{role}_token_id")(number)
    if vocabulary.end_of_turn is not None:
        writer.add_eot_token_id(vocabulary.end_of_turn)
    writer.add_add_bos_token(vocabulary.adds_bos)
    if vocabulary.chat_template:
        writer.add_chat_template(vocabulary.chat_template)


def _text_of(token: str | Mapping[str, Any] | None) -> str:
    """Older files spell a special token as an object with its content."""
    return str(token["content"]) if isinstance(token, Mapping) else token or ""


def _end_of_turn(folder: Path, eos: int | None) -> int | None:
    """Where the tuned model ends its turn, if that is another token than the tokenizer's end of sequence."""
    stops = read_object(folder / "generation_config.json").get("eos_token_id")
    first = stops[0] if isinstance(stops, list) and stops else stops
    return first if isinstance(first, int) and first != eos else None


def _adds(tokenizer: Path, bos: int | None) -> bool:
    """Whether each text begins with the begin-of-sequence token by itself."""
    ids = Tokenizer.from_file(str(tokenizer)).encode("x").ids
    return bos is not None and ids[:1] == [bos]


def _chat_template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    return template if isinstance(template, str) else None
