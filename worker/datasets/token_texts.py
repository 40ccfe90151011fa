"""The exact text of each token, by its id: tokens side by side spell the sequence, byte for byte."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable
from typing import Any

from worker.training.data import special_ids

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_WORD_START = "▁"  # SentencePiece's sign for a space


def _as_hex(error: UnicodeError) -> tuple[str, int]:
    """Bytes that are no whole character, each as `<0xE2>`."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(f"<0x{byte:02X}>" for byte in error.object[error.start : error.end]), error.end


codecs.register_error("hex_bytes", _as_hex)


class TokenTexts:
    """What the tokens of one tokenizer spell; each id is looked up once."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._decoders = _decoder_types(tokenizer)
        self._added = {number: token.content for number, token in tokenizer.added_tokens_decoder.items()}
        self._bytes: dict[int, bytes] = {}
        self.special = special_ids(tokenizer)

    def text(self, token_id: int) -> str:
        """One token's text; a byte that is no whole character is shown as `<0xE2>`."""
        return self._spelled(token_id).decode("utf-8", "hex_bytes")

    def join(self, token_ids: Iterable[int]) -> str:
        """The text of neighbouring tokens, whose bytes may make up whole characters together."""
        return b"".join(map(self._spelled, token_ids)).decode("utf-8", "hex_bytes")

    def spells(self, token_ids: list[int]) -> bool:
        """Whether the tokens' texts say what the tokenizer decodes them to, a space at the beginning aside."""
        decoded: str = self._tokenizer.decode(token_ids, clean_up_tokenization_spaces=False)
        joined = b"".join(map(self._spelled, token_ids)).decode("utf-8", "replace")
        return joined.removeprefix(" ") == decoded.removeprefix(" ")

    def _spelled(self, token_id: int) -> bytes:
        known = self._bytes.get(token_id)
        if known is None:
            known = self._bytes[token_id] = self._find(token_id)
        return known

    def _find(self, token_id: int) -> bytes:
        if token_id in self._added:
            return str(self._added[token_id]).encode("utf-8", "surrogatepass")
        piece: str | None = self._tokenizer.convert_ids_to_tokens(token_id)
        if piece is None:
            return b""
        if "ByteLevel" in self._decoders and all(character in _BYTE_OF for character in piece):
            return bytes(_BYTE_OF[character] for character in piece)
        if self._decoders & {"Metaspace", "ByteFallback", "Replace"}:
            byte = _BYTE.fullmatch(piece) if "ByteFallback" in self._decoders else None
            return bytes([int(byte[1], 16)]) if byte else piece.replace(_WORD_START, " ").encode()
        alone: str = self._tokenizer.decode([token_id], clean_up_tokenization_spaces=False)
        return alone.encode()


def _decoder_types(tokenizer: Any) -> set[str]:
    """The kinds of the steps by which the tokenizer's backend decodes; none where it has no such backend."""
    decoder = getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None)
    if decoder is None:
        return set()
    described = json.loads(decoder.__getstate__())
    return {step["type"] for step in (described, *described.get("decoders", ()))}


def _byte_of_character() -> dict[str, int]:
    """Byte-level vocabularies write each byte as a printable character. Source: GPT-2's `bytes_to_unicode`."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


_BYTE_OF = _byte_of_character()
