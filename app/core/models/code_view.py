"""What is shown of a model's own code before somebody allows it."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlmodel import Session

from app.core.models.consent import find_code, find_consent, list_consents, model_folder
from app.core.models.models import BaseModel, CodeConsent
from app.core.models.own_code import CodeFile, find_change
from app.core.paths import DataFolder

_HIDDEN = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})  # also what turns the direction of text around


@dataclass(frozen=True, slots=True)
class CodeView:
    """The files as they are now. `change` says what is not as it was allowed; None where that is all the same."""

    needed: bool
    sha256: str | None = None
    revision: str | None = None
    files: Sequence[CodeFile] = ()
    consent: CodeConsent | None = None
    change: str | None = None
    consents: Sequence[CodeConsent] = field(default_factory=list)

    @property
    def allowed(self) -> bool:
        """Whether just this code may be run."""
        return self.consent is not None and self.change is None


def view_code(session: Session, folder: DataFolder, model: BaseModel) -> CodeView:
    """Raises: InvalidInput where it cannot be allowed at all."""
    code, consents = find_code(model_folder(folder, model)), list_consents(session, model)
    if code is None:
        return CodeView(needed=False, consents=consents)
    consent = find_consent(session, model)
    change = find_change(code.hashes, consent.files) if consent is not None else None
    return CodeView(True, code.sha256, code.revision, code.files, consent, change, consents)


def readable(file: CodeFile) -> str:
    """A file's text, in which nothing is hidden: what cannot be seen is spelled out."""
    text = file.content.decode("utf-8", errors="backslashreplace")
    return "".join(_spell(character) for character in text.replace("\r\n", "\n"))


def _spell(character: str) -> str:
    hidden = character not in "\n\t" and unicodedata.category(character) in _HIDDEN
    return f"\\u{ord(character):04x}" if hidden else character
