"""From texts to token ids: those of many rows at once, and no part of a conversation twice."""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from itertools import chain, pairwise
from typing import Any, TypeVar

Ids = list[int]
Result = TypeVar("Result")
# What encodes a row: it asks for the ids of some texts, is sent them, perhaps asks again, and returns what it made.
Encoder = Generator[Sequence[str], list[Ids], Result]


def encode_together(tokenizer: Any, encoders: Sequence[Encoder[Result]], refusal: type[Exception]) -> list[Any]:
    """What each encoder returns, or the `refusal` that it raises, in order: `list[Result | refusal]`.

    What they ask for is tokenized at once, each text once.
    """
    found: list[Any] = [None] * len(encoders)
    answers: dict[int, list[Ids] | None] = dict.fromkeys(range(len(encoders)))
    while answers:
        asked: dict[int, Sequence[str]] = {}
        for index, answer in answers.items():
            try:
                asked[index] = encoders[index].send(answer)  # type: ignore[arg-type]  # None starts a generator
            except StopIteration as end:
                found[index] = end.value
            except refusal as error:
                found[index] = error
        answers = dict(_answer(tokenizer, asked))
    return found


def _answer(tokenizer: Any, asked: dict[int, Sequence[str]]) -> Generator[tuple[int, list[Ids]], None, None]:
    ids_of = _tokenize(tokenizer, list(dict.fromkeys(chain.from_iterable(asked.values()))))
    for index, texts in asked.items():
        yield index, [ids_of[text] for text in texts]


def _tokenize(tokenizer: Any, texts: Sequence[str]) -> dict[str, Ids]:
    """The ids of each text, without those that the tokenizer would put around it."""
    whole = [text for text in texts if text]
    found = tokenizer(whole, add_special_tokens=False, verbose=False)["input_ids"] if whole else []
    return {"": [], **dict(zip(whole, found, strict=True))}


class Cuts:
    """Where a text can be cut without a change to its ids: before most added tokens, such as `<|im_start|>`.

    A tokenizer of the `tokenizers` library takes added tokens that are not normalized out of a text first, the leftmost
    longest each time; what lies between them is tokenized piece by piece.
    Source: tokenizers, `AddedVocabulary::extract_and_normalize`.
    """

    def __init__(self, tokenizer: Any) -> None:
        taken = hasattr(tokenizer, "backend_tokenizer") and not tokenizer.split_special_tokens
        added = [each for each in tokenizer.added_tokens_decoder.values() if not each.normalized] if taken else []
        contents = sorted((each.content for each in added if each.content), key=len, reverse=True)
        self._added = re.compile("|".join(map(re.escape, contents))) if contents else None
        # Before one that takes the white space on its left along, or that may be part of a word, the text stays whole.
        self._unfit = {each.content for each in added if each.lstrip or each.single_word}

    def before(self, text: str, ends: Sequence[int]) -> list[int]:
        """For each of the text's beginnings of these lengths, which ascend: where its last cut is; 0 without one."""
        found, last = [], 0
        cuts = self._find(text)
        start, end = next(cuts, (0, len(text) + 1))
        for length in ends:
            while end <= length:
                last = start
                start, end = next(cuts, (0, len(text) + 1))
            found.append(last)
        return found

    def _find(self, text: str) -> Generator[tuple[int, int], None, None]:
        for match in self._added.finditer(text) if self._added else ():
            if match.group() not in self._unfit:
                yield match.span()


def ids_of_beginnings(cuts: Cuts, texts: Sequence[str]) -> Encoder[list[Ids]]:
    """The ids of each text, where each begins with the one before: those of its pieces, which mostly are shared."""
    whole, ends = texts[-1] if texts else "", [len(text) for text in texts]
    starts = cuts.before(whole, ends)
    pieces = [whole[start:end] for start, end in pairwise([0, *starts])]
    tails = [whole[start:end] for start, end in zip(starts, ends, strict=True)]
    found = yield [*pieces, *tails]
    ids_of_texts: list[Ids] = []
    head: Ids = []
    for piece, tail in zip(found[: len(texts)], found[len(texts) :], strict=True):
        head = head + piece
        ids_of_texts.append(head + tail)
    return ids_of_texts
