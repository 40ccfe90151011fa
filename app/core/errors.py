"""Every error a user can meet. Docstrings are the default messages; `app/web/errors.py` maps them to HTTP."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Fault:
    """One invalid input: the field it belongs to, what is wrong, what to do, and the values that would mend it."""

    field: str
    message: str
    advice: str | None = None
    fix: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """{field, message, advice, fix?}."""
        values = asdict(self)
        return values if self.fix is not None else {name: value for name, value in values.items() if name != "fix"}


class AppError(Exception):
    """Something went wrong."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str | None = None, *, advice: str | None = None) -> None:
        self.message = message or inspect.cleandoc(self.__doc__ or "Something went wrong.")
        self.advice = advice
        super().__init__(self.message)

    def to_json(self) -> dict[str, Any]:
        """{code, message, advice?}, as the API and the command show it; invalid input adds field and faults."""
        return {"code": self.code, "message": self.message, **({"advice": self.advice} if self.advice else {})}


class NotFound(AppError):
    """There is nothing with this id or name."""

    code = "not_found"


class Conflict(AppError):
    """This is not possible in the current state."""

    code = "conflict"

    def __init__(
        self,
        message: str | None = None,
        *,
        advice: str | None = None,
        field: str | None = None,
        state: str | None = None,
        possible: Sequence[str] | None = None,
    ) -> None:
        super().__init__(message, advice=advice)
        self.field = field  # of the input that collides with what is there, where one does
        self.state = state  # of the job that the action was asked of
        self.possible = possible  # what can be asked of it instead

    def to_json(self) -> dict[str, Any]:
        more = {"field": self.field or None, "state": self.state, "possible": self.possible}
        return {**super().to_json(), **{name: value for name, value in more.items() if value is not None}}


class Forbidden(AppError):
    """This request is not allowed."""

    code = "forbidden"


class Unauthorized(AppError):
    """A valid token is needed."""

    code = "unauthorized"


class TooManyRequests(AppError):
    """Too many requests. Try again in a while."""

    code = "too_many_requests"

    def __init__(self, message: str | None = None, *, advice: str | None = None, retry_seconds: int = 5) -> None:
        super().__init__(message, advice=advice)
        self.retry_seconds = retry_seconds


class TooLarge(AppError):
    """The upload is larger than the limit."""

    code = "too_large"


class NoRoom(AppError):
    """The disk is full: nothing was stored."""

    code = "disk_full"


class InvalidInput(AppError):
    """Some values are not valid."""

    code = "invalid_input"

    def __init__(self, faults: Sequence[Fault] | str, *, field: str = "") -> None:
        self.faults = [Fault(field, faults)] if isinstance(faults, str) else list(faults)
        lines = [f"{fault.field}: {fault.message}" if fault.field else fault.message for fault in self.faults]
        super().__init__("; ".join(lines), advice=self.faults[0].advice if self.faults else None)

    def to_json(self) -> dict[str, Any]:
        faults = [fault.to_json() for fault in self.faults]
        return {**super().to_json(), **({"field": self.faults[0].field, "faults": faults} if faults else {})}


class DatasetFormatError(InvalidInput):
    """The dataset cannot be read."""

    code = "dataset_format"


class DatabaseTooNew(AppError):
    """The database was written by a newer version of Loradeck."""

    code = "database_too_new"


class DatabaseDamaged(AppError):
    """The database is damaged."""

    code = "database_damaged"


class BackupFailed(AppError):
    """The backup could not be made."""

    code = "backup_failed"


class RestoreFailed(AppError):
    """The backup could not be restored."""

    code = "restore_failed"


class WorkerAlreadyRunning(AppError):
    """Another worker already runs on this data folder."""

    code = "worker_already_running"


class JobError(AppError):
    """The job failed."""

    code = "job_failed"


class OutOfMemory(JobError):
    """The device ran out of memory."""

    code = "out_of_memory"


class HostOutOfMemory(JobError):
    """The host ran out of memory."""

    code = "host_out_of_memory"


class ModelLoadError(JobError):
    """The base model could not be loaded."""

    code = "model_load"


class DatasetImportError(JobError):
    """The dataset could not be imported."""

    code = "dataset_import"


class MergeError(JobError):
    """The adapter could not be merged into the base model."""

    code = "merge"


class JobCancelled(JobError):
    """The job was cancelled."""

    code = "cancelled"

    def __init__(
        self, message: str | None = None, *, advice: str | None = None, summary: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message, advice=advice)
        self.summary = summary or {}  # what it came to, where that was to be kept
