"""Whether the Python code that comes with a model may be run: an admin allows just the files that are there."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from sqlmodel import Session, col, select

from app.core.errors import Conflict, Fault, InvalidInput
from app.core.models.models import BaseModel, CodeConsent, ModelStatus
from app.core.models.own_code import HOW_TO_ALLOW, CodeFault, OwnCode, find_change, needs_code, read_code
from app.core.models.registry import import_again
from app.core.paths import DataFolder


def model_folder(folder: DataFolder, model: BaseModel) -> Path:
    """Where the model's files lie; of one whose import was refused for its code, that code."""
    return Path(model.path) if model.path else folder.model(model.key)


def find_code(folder: Path) -> OwnCode | None:
    """The code that a folder needs; None where it needs none. Raises: InvalidInput where it cannot be allowed."""
    try:
        return read_code(folder) if needs_code(folder) else None
    except CodeFault as error:
        raise InvalidInput(str(error), field="base_model") from error


def list_consents(session: Session, model: BaseModel) -> Sequence[CodeConsent]:
    """All that were ever given, the newest first."""
    given = select(CodeConsent).where(CodeConsent.base_model_id == model.id)
    return session.exec(given.order_by(col(CodeConsent.id).desc())).all()


def find_consent(session: Session, model: BaseModel) -> CodeConsent | None:
    """The one that stands, whatever has become of the files since."""
    return next((each for each in list_consents(session, model) if each.withdrawn_at is None), None)


def allow_code(session: Session, folder: DataFolder, model: BaseModel, sha256: str, who: str) -> CodeConsent:
    """Allow the code that was looked at: its hash must be that of the files as they are now.

    A model whose import ended at its code is imported again. Raises: Conflict, InvalidInput.
    """
    code = find_code(model_folder(folder, model))
    if code is None:
        raise Conflict(f"{model.name} needs no code of its own.")
    if code.sha256 != sha256:
        raise Conflict(
            f"The code of {model.name} is not the one that you looked at: it has the hash {code.sha256} now.",
            advice="Look at it again.",
        )
    standing = find_consent(session, model)
    if standing is not None and standing.sha256 == sha256:
        return standing
    if standing is not None:
        withdraw_consent(session, model, standing.sha256, who)
    consent = CodeConsent(
        base_model_id=model.key,
        sha256=sha256,
        files=code.hashes,
        revision=code.revision,
        given_by=who,
        given_at=time.time(),
    )
    session.add(consent)
    session.flush()
    if model.status == ModelStatus.FAILED:
        import_again(session, model)
    return consent


def withdraw_consent(session: Session, model: BaseModel, sha256: str, who: str) -> CodeConsent:
    """No job loads the code from now on; one that has loaded it goes on. Raises: Conflict where none stands."""
    consent = find_consent(session, model)
    if consent is None or consent.sha256 != sha256:
        raise Conflict(f"The code of {model.name} with the hash {sha256:.64} is not allowed.")
    consent.withdrawn_by, consent.withdrawn_at = who, time.time()
    session.add(consent)
    return consent


def allowed_code(session: Session, model: BaseModel, folder: Path) -> dict[str, str]:
    """SHA-256 by path of the code that a child may run; nothing for a model that needs none. Raises: InvalidInput."""
    code = find_code(folder)
    if code is None:
        return {}
    consent = find_consent(session, model)
    if consent is None:
        message = f"{model.name} needs Python code of its own (`auto_map`), which nobody has allowed to be run."
        raise InvalidInput([Fault("base_model", message, HOW_TO_ALLOW)])
    change = find_change(code.hashes, consent.files)
    if change is not None:
        message = f"The code of {model.name} is not the one that {consent.given_by} has allowed: {change}."
        raise InvalidInput([Fault("base_model", message, HOW_TO_ALLOW)])
    return dict(consent.files)


def code_faults(session: Session, model: BaseModel) -> list[Fault]:
    """Why no job can be queued on a model that is ready."""
    if not model.needs_code or model.path is None:
        return []
    try:
        allowed_code(session, model, Path(model.path))
    except InvalidInput as error:
        return error.faults
    return []
