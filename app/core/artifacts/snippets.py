"""Commands that load what was made in other programs, ready to be copied."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from shlex import quote

from app.core.artifacts.models import Artifact
from app.core.models.models import BaseModel

_GGUF = ".gguf"


@dataclass(frozen=True, slots=True)
class Snippet:
    """A program's name, what it loads, and the text to copy."""

    program: str
    what: str
    text: str


def list_snippets(job_id: int, artifacts: Sequence[Artifact], base: BaseModel | None) -> list[Snippet]:
    """For the newest of each kind that is verified; paths are those of the unpacked downloads."""
    newest: dict[str, Artifact] = {}
    for artifact in artifacts:
        if artifact.verified is not False:
            newest.setdefault(artifact.kind, artifact)
    return [*_python(job_id, newest, base), *_served(job_id, newest, base), *_gguf(job_id, newest)]


def _python(job_id: int, newest: dict[str, Artifact], base: BaseModel | None) -> Iterator[Snippet]:
    for kind in ("merged", "model"):
        if kind in newest:
            text = _PYTHON_WHOLE.format(path=_folder(job_id, kind), code=_PYTHON_CODE if _needs_code(base) else "")
            yield Snippet("Python", f"the {kind} model", text)
            return
    if "adapter" in newest:
        code = _PYTHON_CODE if _needs_code(base) else ""
        named = _PYTHON_ADAPTER.format(base=json.dumps(_base(base)), path=_folder(job_id, "adapter"), code=code)
        yield Snippet("Python", "the adapter beside its base", named)


def _served(job_id: int, newest: dict[str, Artifact], base: BaseModel | None) -> Iterator[Snippet]:
    code = " --trust-remote-code" if _needs_code(base) else ""
    for kind in ("merged", "model"):
        if kind in newest:
            yield Snippet("vLLM", f"the {kind} model", f"vllm serve ./{_folder(job_id, kind)}{code}")
            return
    if "adapter" in newest:
        lora = f"--enable-lora --lora-modules job-{job_id}=./{_folder(job_id, 'adapter')}"
        yield Snippet("vLLM", "the adapter beside its base", f"vllm serve {quote(_base(base))}{code} {lora}")


def _gguf(job_id: int, newest: dict[str, Artifact]) -> Iterator[Snippet]:
    if "gguf" not in newest:
        return
    file = next(each["path"] for each in newest["gguf"].files if each["path"].endswith(_GGUF))
    place = _folder(job_id, "gguf")
    yield Snippet("llama.cpp", "the GGUF", f"llama-cli -m ./{place}/{file} --jinja -cnv")
    yield Snippet("Ollama", "the GGUF", f"ollama create job-{job_id} -f ./{place}/Modelfile && ollama run job-{job_id}")


def _folder(job_id: int, kind: str) -> str:
    """What the zip unpacks to."""
    return f"loradeck-job-{job_id}-{kind}"


def _needs_code(base: BaseModel | None) -> bool:
    """Whether other programs, too, have to be told that Python code which comes with the model may run."""
    return base is not None and base.needs_code


def _base(base: BaseModel | None) -> str:
    """What another program finds it by: the hub id, else the place where somebody keeps it."""
    if base is None:
        return "path/to/the/base-model"
    return str(base.source.get("hub_id") or f"path/to/{base.name}")


_PYTHON_CODE = ", trust_remote_code=True"
_PYTHON_WHOLE = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("./{path}", dtype="auto"{code})
tokenizer = AutoTokenizer.from_pretrained("./{path}")
chat = [{{"role": "user", "content": "Hello"}}]
inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=100)[0], skip_special_tokens=True))"""

_PYTHON_ADAPTER = """\
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained({base}, dtype="auto"{code})
model = PeftModel.from_pretrained(base, "./{path}")
tokenizer = AutoTokenizer.from_pretrained("./{path}")
chat = [{{"role": "user", "content": "Hello"}}]
inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=100)[0], skip_special_tokens=True))"""
