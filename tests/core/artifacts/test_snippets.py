"""Commands to copy: they name what was downloaded, and say it where the model brings code of its own."""

from __future__ import annotations

import ast

import pytest

from app.core.artifacts.models import Artifact
from app.core.artifacts.snippets import list_snippets
from app.core.models.models import BaseModel


def _texts(kind: str, base: BaseModel | None, *, verified: bool | None = True) -> dict[str, str]:
    made = Artifact(job_id=7, kind=kind, path=kind, bytes=1, verified=verified, created_at=0.0)
    return {each.program: each.text for each in list_snippets(7, [made], base)}


def _base(*, needs_code: bool = False) -> BaseModel:
    return BaseModel(name="it's tiny", source={"kind": "folder"}, created_at=0.0, needs_code=needs_code)


@pytest.mark.parametrize("kind", ["merged", "model", "adapter"])
def test_python_is_valid_and_no_code_is_trusted_without_need(kind: str) -> None:
    found = _texts(kind, _base())
    ast.parse(found["Python"])
    assert f"./loradeck-job-7-{kind}" in found["Python"]
    assert "trust" not in found["Python"] + found["vLLM"]


@pytest.mark.parametrize("kind", ["merged", "model", "adapter"])
def test_a_model_with_code_of_its_own_is_loaded_with_it(kind: str) -> None:
    found = _texts(kind, _base(needs_code=True))
    ast.parse(found["Python"])
    assert 'dtype="auto", trust_remote_code=True)' in found["Python"]
    assert " --trust-remote-code" in found["vLLM"]


def test_what_failed_its_proof_is_not_offered() -> None:
    assert _texts("merged", _base(), verified=False) == {}
    assert "path/to/the/base-model" in _texts("adapter", None)["Python"]
