"""An Ollama Modelfile beside a GGUF: the chat template in Ollama's own language, where stops are, how to sample.

Ollama's templates are Go's. A chat template is carried over where it is made of texts around each turn's content, which
is found out by rendering it, and proven by rendering it again. Source: https://docs.ollama.com/modelfile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from app.core.exports.gguf_rules import read_object

_SYSTEM, _USER, _ANSWER, _LAST = "Kx7systemQz", "Kx7userQz", "Kx7answerQz", "Kx7lastQz"
_MOST_CONTEXT = 8192
_SAMPLING = {"temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "repetition_penalty": "repeat_penalty"}
_UNWRITABLE = ("{{", "}}", '"""')

Chat = list[dict[str, str]]


class Render(Protocol):
    """A chat as text, with or without what asks for an answer at its end."""

    def __call__(self, chat: Chat, *, ask: bool) -> str: ...


@dataclass(frozen=True, slots=True)
class Turns:
    """The text before and after the content of each role's turns, and what asks for an answer."""

    before: Mapping[str, str]
    after: Mapping[str, str]
    ask: str
    default_system: str | None = None
    roles: Sequence[str] = field(default=("system", "user", "assistant"))

    def render(self, chat: Chat, *, ask: bool) -> str:
        """As Ollama will, which puts the Modelfile's SYSTEM ahead of a chat without one."""
        if self.default_system is not None and chat[0]["role"] != "system":
            chat = [{"role": "system", "content": self.default_system}, *chat]
        told = "".join(self.before[turn["role"]] + turn["content"] + self.after[turn["role"]] for turn in chat)
        return told + (self.ask if ask else "")

    def to_go(self) -> str:
        """In Go's template language; without trim markers, which would eat line ends that belong to the template."""
        cases: list[str] = []
        for role in self.roles:
            otherwise = "else " if cases else ""
            content = self.before[role] + "{{ .Content }}" + self.after[role]
            cases.append(f'{otherwise}if eq .Role "{role}" }}}}{content}')
        return "{{ range .Messages }}{{ " + "{{ ".join(cases) + "{{ end }}{{ end }}" + self.ask


def find_turns(render: Render) -> Turns | None:
    """None where the template is more than texts around contents."""
    chat: Chat = [_turn("system", _SYSTEM), _turn("user", _USER), _turn("assistant", _ANSWER), _turn("user", _LAST)]
    try:
        turns = _cut(render, chat)
        same = turns is not None and all(
            turns.render(each, ask=ask) == render(each, ask=ask)
            for each, ask in ((chat, True), (chat[:3], False), (chat[1:], True), (chat[1:2], True))
        )
    except (ValueError, IndexError):  # a content that the template leaves out or says twice
        return None
    texts = "" if turns is None else turns.to_go().replace("{{ ", "").replace(" }}", "") + (turns.default_system or "")
    return turns if same and not any(each in texts for each in _UNWRITABLE) else None


def _cut(render: Render, chat: Chat) -> Turns | None:
    """Raises: ValueError where a content is not found."""
    first, second, third, between, end = _pieces(render(chat, ask=True), (_SYSTEM, _USER, _ANSWER, _LAST))
    _, after_user = _pieces(render(chat[:2], ask=False), (_USER,))
    _, after_answer = _pieces(render(chat[:3], ask=False), (_ANSWER,))
    before_user = between.removeprefix(after_answer)
    before = {"system": first, "user": before_user, "assistant": third.removeprefix(after_user)}
    after = {"system": second.removesuffix(before_user), "user": after_user, "assistant": after_answer}
    turns = Turns(before, after, end.removeprefix(after_user))
    lead = _pieces(render(chat[1:2], ask=False), (_USER,))[0].removesuffix(before_user)
    if not lead:
        return turns
    if not lead.startswith(first) or not lead.endswith(after["system"]):
        return None
    default = lead[len(first) : len(lead) - len(after["system"])]
    return Turns(before, after, turns.ask, default)


def _pieces(text: str, contents: Sequence[str]) -> list[str]:
    """What stands before, between and after the contents. Raises: ValueError."""
    found = []
    for content in contents:
        if text.count(content) != 1:
            raise ValueError(f"{content} stands {text.count(content)} times in the rendered chat")
        before, _, text = text.partition(content)
        found.append(before)
    return [*found, text]


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def write_modelfile(folder: Path, file: str, tokenizer: Any, *, adds_bos: bool) -> str:
    """The Modelfile's text for the model of a folder, whose GGUF is `file`. `adds_bos`: so does the GGUF, by itself."""
    turns = find_turns(rendering(tokenizer, without=tokenizer.bos_token if adds_bos else None))
    lines = [f"FROM ./{file}", ""]
    if turns is not None:
        lines += [f'TEMPLATE """{turns.to_go()}"""', ""]
        lines += [f'SYSTEM """{turns.default_system}"""', ""] if turns.default_system else []
    else:
        lines += ["# The chat template cannot be written in Ollama's language as it is. The GGUF holds the original;"]
        lines += ["# Ollama uses its own version of it where it knows the template, else set TEMPLATE here.", ""]
    lines += [f"PARAMETER {name} {value}" for name, value in _parameters(folder)]
    lines += [f'PARAMETER stop "{text}"' for text in _stops(folder, tokenizer)]
    return "\n".join(lines) + "\n"


def rendering(tokenizer: Any, without: str | None) -> Render:
    """The tokenizer's chat template; without a begin-of-sequence token that is added again when the text is read."""

    def render(chat: Chat, *, ask: bool) -> str:
        text: str = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=ask)
        return text.removeprefix(without) if without else text

    return render


def _parameters(folder: Path) -> list[tuple[str, Any]]:
    config, generation = (read_object(folder / name) for name in ("config.json", "generation_config.json"))
    context = min(config.get("max_position_embeddings", _MOST_CONTEXT), _MOST_CONTEXT)
    sampled = generation if generation.get("do_sample") else {}
    return [("num_ctx", context), *((ollama, sampled[name]) for name, ollama in _SAMPLING.items() if sampled.get(name))]


def _stops(folder: Path, tokenizer: Any) -> list[str]:
    """The texts that end an answer."""
    named = read_object(folder / "generation_config.json").get("eos_token_id", tokenizer.eos_token_id)
    ids = named if isinstance(named, list) else [named]
    return [tokenizer.convert_ids_to_tokens(number) for number in ids if number is not None]
