"""A chat answers what comes through its inbox, from one load of the model, and ends when it is told to."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from app.core.errors import JobCancelled
from app.core.jobs.sampling import Sampling
from tests.worker.tiny import make_context, make_model, make_tokenizer, read_records, save_tiny_model
from worker.context import JobContext, StopRequest
from worker.inbox import FILE, InboxWriter
from worker.inference import chat, voices
from worker.inference.chat import Chat, Pieces
from worker.inference.generate import generate, load_model
from worker.inference.playground import run_playground

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]
SAMPLING = {"max_new_tokens": 12, "temperature": 1.0, "top_p": 0.95, "seed": 7}
QUESTION = [{"role": "user", "content": "What is the colour of box 3?"}]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"), tied=False)


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", init_lora_weights=False),
    )
    folder = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """What was loaded, in its order."""
    loaded: list[tuple[str, str | None]] = []

    def load(path: str, adapter: str | None, *others: Any) -> Any:
        loaded.append((path, adapter))
        return load_model(path, adapter, *others)

    monkeypatch.setattr(voices, "load_model", load)
    return loaded


@pytest.fixture
def make_chat(tmp_path: Path, base: Path, adapter: Path) -> Callable[..., tuple[JobContext, InboxWriter]]:
    def make(**payload: Any) -> tuple[JobContext, InboxWriter]:
        given = {
            "chat": True,
            "base_model": {"path": str(base)},
            "trained": str(adapter),
            "spec": {"method": "lora", "task": "sft"},
            "device": "cpu",
            "idle_seconds": 60.0,
        }
        context = make_context(tmp_path / "job", "playground", given | payload)
        return context, InboxWriter(Path(context.assignment.spool).with_name(FILE))

    return make


def _turn(number: int = 1, *sides: str, messages: Any = None, **sampling: Any) -> dict[str, Any]:
    asked = dict.fromkeys(sides or ("tuned",), messages or QUESTION)
    return {"turn": {"id": number, "messages": asked, "system": "", "sampling": SAMPLING | sampling}}


def _answers(context: JobContext) -> list[dict[str, Any]]:
    return [record.data for record in read_records(context) if record.kind == "answer"]


def _pieces(context: JobContext) -> list[dict[str, Any]]:
    return [record.data for record in read_records(context) if record.kind == "piece"]


def _phases(context: JobContext) -> list[str]:
    return [record.data["phase"] for record in read_records(context) if record.kind == "phase"]


def _joined(pieces: list[dict[str, Any]]) -> str:
    text = ""
    for piece in pieces:
        text = text[: piece["at"]] + piece["text"]
    return text


def test_both_sides_answer_from_one_load_under_one_seed(
    make_chat: Any, base: Path, adapter: Path, loads: list[tuple[str, str | None]]
) -> None:
    context, inbox = make_chat()
    inbox.put(_turn(1, "base", "tuned"))
    inbox.put({"end": "asked"})
    assert run_playground(context) == {"turns": 1, "ended": "asked"}
    assert loads == [(str(base), str(adapter))]
    answers = {answer["side"]: answer for answer in _answers(context)}
    for side, folder in (("base", None), ("tuned", str(adapter))):
        alone = generate(
            load_model(str(base), folder), make_tokenizer(), QUESTION, Sampling(**SAMPLING), lambda _: False
        )
        told = {name: answers[side][name] for name in ("text", "tokens", "stop_reason")}
        assert told == {"text": alone.text, "tokens": alone.tokens, "stop_reason": alone.stop_reason}
    assert answers["base"]["text"] != answers["tuned"]["text"]


def test_further_questions_load_nothing(make_chat: Any, loads: list[tuple[str, str | None]]) -> None:
    context, inbox = make_chat()
    for number, side in enumerate(("tuned", "base", "tuned"), start=1):
        inbox.put(_turn(number, side))
    inbox.put({"end": "room"})
    assert Chat(context).run() == {"turns": 3, "ended": "room"}
    assert len(loads) == 1
    assert [(answer["turn"], answer["side"]) for answer in _answers(context)] == [
        (1, "tuned"),
        (2, "base"),
        (3, "tuned"),
    ]
    assert _phases(context) == ["load", "load", "generate", "idle", "generate", "idle", "generate", "idle"]


def test_pieces_add_up_to_the_answer(make_chat: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "PIECE_SECONDS", 0.0)
    context, inbox = make_chat()
    inbox.put(_turn(1, "base", "tuned", max_new_tokens=40))
    inbox.put({"end": "asked"})
    Chat(context).run()
    for answer in _answers(context):
        pieces = [piece for piece in _pieces(context) if piece["side"] == answer["side"]]
        assert len(pieces) > 5, "it was not told bit by bit"
        assert _joined(pieces).strip().rstrip("\N{REPLACEMENT CHARACTER}") == answer["text"].rstrip(
            "\N{REPLACEMENT CHARACTER}"
        )


def test_pieces_come_a_few_tokens_at_a_time(make_chat: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "PIECE_SECONDS", 3600.0)
    context, inbox = make_chat()
    inbox.put(_turn(1, max_new_tokens=40))
    inbox.put({"end": "asked"})
    Chat(context).run()
    assert [piece["at"] for piece in _pieces(context)] == [0]


def test_character_of_several_tokens_is_told_once_it_is_whole(tmp_path: Path) -> None:
    tokenizer, context = make_tokenizer(), make_context(tmp_path, "playground", {})
    pieces = Pieces(context.spool, tokenizer, {"turn": 1, "side": "base"})
    ids = tokenizer("a☃b", add_special_tokens=False)["input_ids"]
    assert len(ids) == 5, "the snowman is three tokens"
    for count in range(1, 6):
        pieces._told_at = float("-inf")
        pieces.tell(torch.tensor(ids[:count]))
    assert [(piece["at"], piece["text"]) for piece in _pieces(context)] == [(0, "a"), (1, "☃"), (2, "b")]


def test_stop_ends_the_answer_in_hand_and_the_chat_goes_on(make_chat: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    context, inbox = make_chat()
    tell = Pieces.tell

    def stop_after_the_first(self: Pieces, ids: torch.Tensor) -> None:
        tell(self, ids)
        if len(ids) == 1:
            inbox.put({"stop": 1})

    monkeypatch.setattr(Pieces, "tell", stop_after_the_first)
    inbox.put(_turn(1, "base", "tuned", max_new_tokens=60))
    inbox.put(_turn(2, max_new_tokens=3))
    inbox.put({"end": "asked"})
    Chat(context).run()
    told = [(answer["turn"], answer["side"], answer["tokens"], answer["stop_reason"]) for answer in _answers(context)]
    assert told == [(1, "base", 1, "cancelled"), (1, "tuned", 0, "cancelled"), (2, "tuned", 3, "length")]


def test_chat_ends_once_nothing_was_asked_for_a_while(make_chat: Any) -> None:
    context, _ = make_chat(idle_seconds=0.1)
    assert Chat(context).run() == {"turns": 0, "ended": "idle"}
    assert _phases(context) == [], "nothing was loaded for nothing"


@pytest.mark.parametrize("request_", [StopRequest.CANCEL, StopRequest.INTERRUPT])
def test_answer_in_hand_is_given_up_where_the_worker_stops_or_the_chat_is_cancelled(
    make_chat: Any, monkeypatch: pytest.MonkeyPatch, request_: StopRequest
) -> None:
    context, inbox = make_chat()
    monkeypatch.setattr(Pieces, "tell", lambda _self, _ids: setattr(context, "stop_request", request_))
    inbox.put(_turn(1, max_new_tokens=60))
    with pytest.raises(JobCancelled):
        Chat(context).run()
    assert _answers(context) == []


@pytest.mark.parametrize(("request_", "ended"), [(StopRequest.INTERRUPT, "interrupted"), (StopRequest.SAVE, "asked")])
def test_chat_that_waits_just_ends(make_chat: Any, request_: StopRequest, ended: str) -> None:
    context, _ = make_chat()
    context.stop_request = request_
    assert Chat(context).run() == {"turns": 0, "ended": ended}


def test_question_beyond_the_models_positions_is_refused_at_its_field_and_the_next_is_answered(make_chat: Any) -> None:
    context, inbox = make_chat()
    inbox.put(_turn(1, "base", "tuned", messages=[{"role": "user", "content": "box " * 300}]))
    inbox.put(_turn(2))
    inbox.put({"end": "asked"})
    Chat(context).run()
    *refused, answered = _answers(context)
    assert [(each["side"], each["error"]["field"]) for each in refused] == [("base", "prompt"), ("tuned", "prompt")]
    assert "the model takes 256" in refused[0]["error"]["message"]
    assert answered["tokens"] > 0


def test_model_trained_whole_takes_the_place_of_its_base(
    make_chat: Any, base: Path, tmp_path: Path, loads: list[tuple[str, str | None]]
) -> None:
    make_model(make_tokenizer(), tie_word_embeddings=False, seed=5).save_pretrained(tmp_path / "whole")
    context, inbox = make_chat(trained=str(tmp_path / "whole"), spec={"method": "full", "task": "sft"})
    inbox.put(_turn(1, "base", "tuned"))
    inbox.put({"end": "asked"})
    Chat(context).run()
    assert loads == [(str(base), None), (str(tmp_path / "whole"), None)]
    assert len({answer["text"] for answer in _answers(context)}) == 2


def test_trained_biases_leave_the_base_to_a_load_of_its_own(
    make_chat: Any, base: Path, adapter: Path, tmp_path: Path, loads: list[tuple[str, str | None]]
) -> None:
    context, inbox = make_chat()
    config = adapter / "adapter_config.json"
    biased = tmp_path / "biased"
    shutil.copytree(adapter, biased)
    (biased / config.name).write_text(config.read_text().replace('"bias": "none"', '"bias": "lora_only"'))
    context.payload["trained"] = str(biased)
    inbox.put(_turn(1, "base", "tuned"))
    inbox.put({"end": "asked"})
    Chat(context).run()
    assert loads == [(str(base), None), (str(base), str(biased))]


def test_model_of_plain_text_goes_on_with_the_question(make_chat: Any, base: Path) -> None:
    context, inbox = make_chat(spec={"method": "lora", "task": "text"}, trained=None)
    inbox.put(_turn(1, "base", messages=[*QUESTION, {"role": "user", "content": "Box 3 is"}], temperature=0.0))
    inbox.put({"end": "asked"})
    Chat(context).run()
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), make_tokenizer()
    ids = tokenizer("Box 3 is", return_tensors="pt")["input_ids"]
    first = tokenizer.decode(model(ids).logits[0, -1].argmax(), skip_special_tokens=True)
    assert _answers(context)[0]["text"].startswith(first.strip())
