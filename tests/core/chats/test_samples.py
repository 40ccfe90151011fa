"""Prompts are kept as samples once each, within what a job's spec takes."""

from __future__ import annotations

import pytest
from sqlmodel import Session

from app.core.chats.samples import drop_sample, keep_sample, list_samples
from app.core.errors import Conflict, InvalidInput, NotFound
from app.core.jobs.spec import parse_spec
from app.core.jobs.spec_run_fields import MOST_SAMPLES


def test_sample_is_kept_once_and_dropped(session: Session) -> None:
    first = keep_sample(session, " Why? ")
    assert keep_sample(session, "Why?").id == first.id
    assert [sample.text for sample in list_samples(session)] == ["Why?"]
    drop_sample(session, first.key)
    assert list_samples(session) == []
    with pytest.raises(NotFound):
        drop_sample(session, first.key)


@pytest.mark.parametrize("text", ["", " \n", "x" * 2001])
def test_what_no_spec_takes_is_not_kept(session: Session, text: str) -> None:
    with pytest.raises(InvalidInput):
        keep_sample(session, text)


def test_all_that_is_kept_fits_into_a_spec(session: Session) -> None:
    for number in range(MOST_SAMPLES):
        keep_sample(session, f"{number}" + "x" * 1990)
    with pytest.raises(Conflict, match="16 samples are kept already"):
        keep_sample(session, "one more")
    prompts = [sample.text for sample in list_samples(session)]
    spec = {"base_model": "m", "dataset": "d", "sample_prompts": prompts}
    assert parse_spec(spec).sample_prompts == prompts
    with pytest.raises(InvalidInput) as refused:
        parse_spec({**spec, "sample_prompts": [*prompts, "one more"], "sample_max_new_tokens": -1})
    assert [fault.field for fault in refused.value.faults] == ["sample_prompts", "sample_max_new_tokens"]
