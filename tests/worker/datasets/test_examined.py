"""Nothing is odd about ordinary conversations under the chat templates of published models."""

from __future__ import annotations

import pytest

from app.core.datasets.xray import Flag, suspicious
from app.core.jobs.spec import parse_spec
from tests.worker.training.test_chat_templates import FAMILIES, ONE, TWO, family_tokenizer
from worker.datasets.examined import Examiner
from worker.datasets.token_texts import TokenTexts

pytestmark = pytest.mark.model


@pytest.mark.parametrize("name", FAMILIES)
def test_ordinary_rows_are_not_suspicious(name: str) -> None:
    tokenizer, family = family_tokenizer(name), FAMILIES[name]
    examiner = Examiner(tokenizer, parse_spec({"base_model": "m", "dataset": "d"}), held_out=[1])
    texts = TokenTexts(tokenizer)
    for number, messages in enumerate((ONE, TWO), start=1):
        (examined,) = examiner.examine(number, [messages])
        assert not suspicious(examined.flags)
        assert (Flag.BOS in examined.flags) is (family.bos is not None)
        assert Flag.END_OF_TURN_TRAINED in examined.flags
        assert (Flag.SEVERAL_SEQUENCES in examined.flags) is (family.split and messages is TWO)
        assert (Flag.HELD_OUT in examined.flags) is (messages is TWO)
        assert examined.encoding is not None
        assert all(texts.spells(sequence.input_ids) for sequence in examined.encoding.kept)
