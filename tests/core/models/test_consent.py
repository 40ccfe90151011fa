"""An admin allows just the code that is there; whatever changes, it is refused again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlmodel import Session, select

from app.core.errors import Conflict, InvalidInput
from app.core.jobs.models import Job
from app.core.jobs.status import JobKind
from app.core.models.consent import (
    allow_code,
    allowed_code,
    code_faults,
    find_code,
    list_consents,
    withdraw_consent,
)
from app.core.models.models import BaseModel, ModelStatus
from app.core.models.own_code import REVISION_FILE
from app.core.models.registry import add_model
from app.core.paths import DataFolder
from tests.core.models.safetensors import LLAMA, write_model


def own_code_folder(folder: Path) -> Path:
    """A model that needs two Python files."""
    write_model(folder, {**LLAMA, "auto_map": {"AutoModelForCausalLM": "modeling.Own"}})
    (folder / "modeling.py").write_text("from .helper import help\n")
    (folder / "helper.py").write_text("help = 1\n")
    return folder


@pytest.fixture
def model(session: Session, tmp_path: Path) -> BaseModel:
    return add_model(session, str(own_code_folder(tmp_path / "own")), [tmp_path])


def _hash(model: BaseModel) -> str:
    code = find_code(Path(model.path or ""))
    assert code is not None
    return code.sha256


def _fault(session: Session, model: BaseModel) -> str:
    (fault,) = code_faults(session, model)
    assert fault.field == "base_model"
    assert "An admin can" in (fault.advice or "")
    return fault.message


def test_nothing_runs_before_it_is_allowed_nor_after_it_is_taken_back(
    session: Session, folder: DataFolder, model: BaseModel
) -> None:
    assert model.needs_code
    assert "nobody has allowed" in _fault(session, model)
    consent = allow_code(session, folder, model, _hash(model), "ada")
    assert (consent.given_by, sorted(consent.files)) == ("ada", ["helper.py", "modeling.py"])
    assert code_faults(session, model) == []
    assert allowed_code(session, model, Path(model.path or "")) == consent.files
    assert allow_code(session, folder, model, _hash(model), "bob") is consent
    withdraw_consent(session, model, consent.sha256, "bob")
    assert "nobody has allowed" in _fault(session, model)
    (kept,) = list_consents(session, model)
    assert (kept.withdrawn_by, kept.withdrawn_at is not None) == ("bob", True)
    with pytest.raises(Conflict):
        withdraw_consent(session, model, consent.sha256, "bob")


@pytest.mark.parametrize(
    ("name", "content", "change"),
    [
        ("helper.py", "help = 2\n", "helper.py has changed"),
        ("extra.py", "", "extra.py is new"),
        ("helper.py", None, "helper.py is gone"),
    ],
)
def test_consent_dies_with_any_change(
    session: Session, folder: DataFolder, model: BaseModel, name: str, content: str | None, change: str
) -> None:
    seen = _hash(model)
    allow_code(session, folder, model, seen, "ada")
    file = Path(model.path or "") / name
    file.unlink() if content is None else file.write_text(content)
    assert change in _fault(session, model)
    assert "ada" in _fault(session, model)
    with pytest.raises(Conflict, match="not the one that you looked at"):
        allow_code(session, folder, model, seen, "bob")
    allow_code(session, folder, model, _hash(model), "bob")
    assert code_faults(session, model) == []
    assert [(each.given_by, each.withdrawn_by) for each in list_consents(session, model)] == [
        ("bob", None),
        ("ada", "bob"),
    ]


def test_a_model_without_code_has_none_to_allow(session: Session, folder: DataFolder, tmp_path: Path) -> None:
    plain = add_model(session, str(write_model(tmp_path / "plain")), [tmp_path])
    assert code_faults(session, plain) == []
    with pytest.raises(Conflict, match="needs no code"):
        allow_code(session, folder, plain, "0" * 64, "ada")


def test_code_from_elsewhere_is_not_allowed_by_anybody(session: Session, folder: DataFolder, model: BaseModel) -> None:
    config = {**LLAMA, "auto_map": {"AutoConfig": "acme/other--modeling.Own"}}
    (Path(model.path or "") / "config.json").write_text(json.dumps(config))
    with pytest.raises(InvalidInput, match="not in its folder"):
        allow_code(session, folder, model, "0" * 64, "ada")


def test_a_model_of_the_hub_is_imported_once_its_code_is_allowed(
    session: Session, folder: DataFolder, tmp_path: Path
) -> None:
    """Its import has left the code in the model's own folder, and ended there."""
    model = add_model(session, "acme/own", [])
    place = own_code_folder(folder.model(model.key))
    (place / REVISION_FILE).write_text("abc123")
    model.status = ModelStatus.FAILED
    code = find_code(place)
    assert code is not None
    consent = allow_code(session, folder, model, code.sha256, "ada")
    assert consent.revision == "abc123"
    assert model.status == ModelStatus.IMPORTING
    jobs = session.exec(select(Job).where(Job.kind == JobKind.IMPORT, Job.base_model_id == model.id)).all()
    assert len(jobs) == 2
