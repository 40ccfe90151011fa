"""Answers: by the chat template, with or without an adapter, ended by the end of turn, the limit or the user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from app.core.errors import InvalidInput, ModelLoadError
from app.core.jobs.sampling import Sampling
from app.core.jobs.spec import parse_spec
from tests.worker.tiny import CHAT_TEMPLATE, make_context, make_model, make_tokenizer, read_records, save_tiny_model
from worker.context import JobContext, StopRequest
from worker.inference.generate import Generation, continue_text, generate, load_model, run_generate
from worker.inference.prompts import encode_conversation, encode_opening, stop_token_ids
from worker.training.model import Hardware, load_base_model
from worker.training.quantization import Quantization

pytestmark = [
    pytest.mark.model,
    # peft reads an attribute that transformers has renamed
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]
QUESTION = [{"role": "user", "content": "What is the colour of box 3?"}]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untied, so that its answers are not one token over and over."""
    return save_tiny_model(tmp_path_factory.mktemp("tiny"), tied=False)


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that moves the logits a lot."""
    torch.manual_seed(1)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", init_lora_weights=False),
    )
    folder = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(folder)
    return folder


def _context(folder: Path, base: Path, **values: Any) -> JobContext:
    payload = {"base_model": {"path": str(base)}, "adapter_path": None, "max_new_tokens": 8, "temperature": 0.0}
    return make_context(folder, "playground", payload | values)


def _run(folder: Path, base: Path, **values: Any) -> dict[str, Any]:
    return run_generate(_context(folder, base, **values))


def _greedy(model: Any, tokenizer: Any, count: int) -> list[int]:
    """The likeliest tokens one by one, without generate()."""
    text = tokenizer.apply_chat_template(QUESTION, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    start = ids.shape[1]
    for _ in range(count):
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
    return [int(token) for token in ids[0, start:]]


def _answer(model: Any, tokenizer: Any, **sampling: Any) -> Generation:
    return generate(model, tokenizer, QUESTION, Sampling(**sampling), lambda _tokens: False)


def test_greedy_answer_follows_the_chat_template(base: Path, tmp_path: Path) -> None:
    answer = _run(tmp_path, base, prompt=QUESTION[0]["content"])
    expected = _greedy(AutoModelForCausalLM.from_pretrained(base), make_tokenizer(), 8)
    assert answer == {
        "text": make_tokenizer().decode(expected, skip_special_tokens=True).strip(),
        "tokens": 8,
        "stop_reason": "length",
    }


def test_messages_and_prompt_are_the_same_conversation(base: Path, tmp_path: Path) -> None:
    prompt = _run(tmp_path / "a", base, prompt=QUESTION[0]["content"])
    assert _run(tmp_path / "b", base, messages=QUESTION) == prompt
    longer = [*QUESTION, {"role": "assistant", "content": "Blue."}, {"role": "user", "content": "Sure?"}]
    assert _run(tmp_path / "c", base, messages=longer) != prompt


def test_adapter_changes_the_answer_as_its_merged_model_does(base: Path, adapter: Path, tmp_path: Path) -> None:
    tuned = _run(tmp_path / "tuned", base, messages=QUESTION, adapter_path=str(adapter))
    merged = load_model(str(base), str(adapter)).merge_and_unload()
    assert (
        tuned["text"] == make_tokenizer().decode(_greedy(merged, make_tokenizer(), 8), skip_special_tokens=True).strip()
    )
    assert tuned != _run(tmp_path / "base", base, messages=QUESTION)


def test_base_that_was_trained_quantised_answers_quantised(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str | None] = []

    def load(path: str, hardware: Hardware, quantization: Quantization | None = None) -> Any:
        loaded.append(quantization.name if quantization else None)
        return load_base_model(path, hardware, quantization)

    monkeypatch.setattr("worker.inference.generate.base_model_of", load)
    for method in ("qlora", "lora"):
        spec = parse_spec({"base_model": "tiny", "dataset": "boxes", "method": method}).model_dump(mode="json")
        assert _run(tmp_path / method, base, messages=QUESTION, spec=spec)["tokens"] > 0
    assert loaded == ["nf4", None]


def test_answer_ends_at_a_stop_token(base: Path) -> None:
    model, tokenizer = load_model(str(base), None), make_tokenizer()
    expected = _greedy(model, tokenizer, 3)
    model.generation_config.eos_token_id = [expected[-1]]
    answer = _answer(model, tokenizer)
    assert answer.stop_reason == "eos"
    assert answer.tokens == expected.index(expected[-1]) + 1


def test_stop_tokens_include_the_end_of_turn_that_training_learns() -> None:
    tokenizer = make_tokenizer()
    model = make_model(tokenizer)
    end_of_turn = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert stop_token_ids(model, tokenizer) == [end_of_turn]
    tokenizer.eos_token = "<|endoftext|>"  # as a base model's tokenizer has it
    model.generation_config.eos_token_id = None
    assert stop_token_ids(model, tokenizer) == [tokenizer.eos_token_id, end_of_turn]


def test_template_that_names_no_end_of_turn_leaves_the_models_own(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = make_tokenizer(chat_template="{{ messages | length }}")
    assert stop_token_ids(make_model(tokenizer), tokenizer) == [tokenizer.eos_token_id]
    assert "the end of a turn cannot be told" in caplog.text


def test_cancel_keeps_what_was_generated(base: Path, tmp_path: Path) -> None:
    context = _context(tmp_path, base, messages=QUESTION, max_new_tokens=50)
    context.stop_request = StopRequest.CANCEL
    answer = run_generate(context)
    assert answer["tokens"] == 1
    assert answer["stop_reason"] == "cancelled"


def test_progress_counts_tokens(base: Path, tmp_path: Path) -> None:
    context = _context(tmp_path, base, messages=QUESTION, max_new_tokens=3)
    run_generate(context)
    records = read_records(context)
    assert [r.data["phase"] for r in records if r.kind == "phase"] == ["load", "generate"]
    assert [(r.step, r.data["max_steps"]) for r in records if r.kind == "progress"] == [(1, 3), (2, 3), (3, 3)]


def test_seed_repeats_a_drawn_answer_and_no_seed_draws_anew(base: Path) -> None:
    model, tokenizer = load_model(str(base), None), make_tokenizer()
    drawn = [_answer(model, tokenizer, max_new_tokens=16, temperature=1.0, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    torch.manual_seed(0)
    unseeded = _answer(model, tokenizer, max_new_tokens=16, temperature=1.0)
    torch.manual_seed(0)
    assert _answer(model, tokenizer, max_new_tokens=16, temperature=1.0) != unseeded


def test_answer_stops_at_the_models_own_limit(base: Path) -> None:
    model, tokenizer = load_model(str(base), None), make_tokenizer()
    text = tokenizer.apply_chat_template(QUESTION, tokenize=False, add_generation_prompt=True)
    room = 256 - len(tokenizer(text)["input_ids"])
    assert _answer(model, tokenizer, max_new_tokens=4096).tokens == room


def test_model_without_a_chat_template_still_answers(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "model", chat_template=None)
    assert _run(tmp_path / "job", folder, messages=QUESTION)["tokens"] == 8
    assert CHAT_TEMPLATE not in (folder / "tokenizer_config.json").read_text()


def test_prompt_that_fills_the_context_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="the model takes 256"):
        _run(tmp_path, base, prompt="box " * 300)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"prompt": " "}, "prompt"),
        ({"prompt": "a", "max_new_tokens": 0}, "max_new_tokens"),
        ({"prompt": "a", "temperature": -0.1}, "temperature"),
        ({"prompt": "a", "top_p": 0}, "top_p"),
        ({"prompt": "a", "seed": -1}, "seed"),
    ],
)
def test_impossible_requests_name_their_field(base: Path, tmp_path: Path, values: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        _run(tmp_path, base, **values)
    assert [fault.field for fault in refused.value.faults] == [field]


def test_adapter_without_safetensors_is_refused(base: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter_model.bin").touch()
    with pytest.raises(ModelLoadError, match=r"has no adapter_model\.safetensors"):
        load_model(str(base), str(tmp_path))


def test_top_p_that_leaves_one_token_is_greedy(base: Path) -> None:
    model, tokenizer = load_model(str(base), None), make_tokenizer()
    narrow = _answer(model, tokenizer, max_new_tokens=12, temperature=1.5, top_p=1e-6, seed=3)
    assert narrow == _answer(model, tokenizer, max_new_tokens=12)
    assert _answer(model, tokenizer, max_new_tokens=12, temperature=1.5, seed=3) != narrow


def test_every_token_may_be_drawn_whatever_the_model_is_configured_to(base: Path) -> None:
    model, tokenizer = load_model(str(base), None), make_tokenizer()
    model.generation_config.top_k = 1
    drawn = _answer(model, tokenizer, max_new_tokens=12, temperature=1.0, seed=3)
    assert drawn != _answer(model, tokenizer, max_new_tokens=12)


def test_system_prompt_stands_before_the_conversation(base: Path, tmp_path: Path) -> None:
    system = "Box 3 is red. " * 8
    asked = _run(tmp_path / "a", base, messages=QUESTION, system=system)
    assert asked == _run(tmp_path / "b", base, messages=[{"role": "system", "content": system}, *QUESTION])
    assert asked != _run(tmp_path / "c", base, messages=QUESTION)


def test_template_without_a_system_prompt_refuses_one_at_its_field(tmp_path: Path) -> None:
    template = "{{ raise_exception('System role not supported') if messages[0]['role'] == 'system' }}"
    folder = save_tiny_model(tmp_path / "model", chat_template=template + CHAT_TEMPLATE)
    with pytest.raises(InvalidInput, match="System role not supported") as refused:
        _run(tmp_path / "job", folder, messages=QUESTION, system="Shout.")
    assert [fault.field for fault in refused.value.faults] == ["system"]
    assert _run(tmp_path / "again", folder, messages=QUESTION)["tokens"] > 0


@pytest.mark.parametrize("times", [1, 2, 3])
def test_begin_of_sequence_comes_once_however_often_it_is_spelled(times: int) -> None:
    tokenizer = make_tokenizer(chat_template="{{ bos_token }}{{ messages[0]['content'] }}")
    spelled = tokenizer.bos_token * (times - 1) + "box"
    ids = encode_conversation(tokenizer, [{"role": "user", "content": spelled}])[0].tolist()
    assert ids.count(tokenizer.bos_token_id) == 1
    ids = encode_opening(tokenizer, tokenizer.bos_token * times + "box")[0].tolist()
    assert ids.count(tokenizer.bos_token_id) == 1


def test_text_is_gone_on_with_behind_one_begin_of_sequence(base: Path) -> None:
    model, tokenizer = load_model(str(base), None), make_tokenizer()
    once, twice = (
        continue_text(model, tokenizer, tokenizer.bos_token * times + "box", Sampling(), lambda _ids: False)
        for times in (1, 2)
    )
    assert once == twice
