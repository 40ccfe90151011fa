"""Settings from the environment or `.env`, all `LORADECK_*`. docs/settings.md lists each; a test holds them equal."""

from __future__ import annotations

import os
import re
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError

from app.core.errors import Fault, InvalidInput


def _cache_home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "loradeck"


def _data_home() -> Path:
    return Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local" / "share")) / "loradeck"


def _variable(field: str | int) -> str:
    return f"LORADECK_{field}".upper()


class Settings(BaseSettings):
    """How this installation runs. Every field is documented by its description."""

    model_config = SettingsConfigDict(env_prefix="LORADECK_", env_file=".env", extra="ignore")

    home: Path = Field(default_factory=_data_home, description="Data folder: database, models, datasets, jobs.")
    cache: Path = Field(default_factory=_cache_home, description="Per-user cache of converted models.")
    host: str = Field("127.0.0.1", description="Address the dashboard binds to.")
    port: int = Field(8000, ge=0, le=65535, description="Port the dashboard binds to; 0 picks a free one.")
    database_url: str | None = Field(
        None, description="SQLAlchemy URL of the SQLite database; default: in the data folder."
    )
    allowed_hosts: list[str] = Field(
        default_factory=list,
        description='Further host names the dashboard answers to, as a JSON list: `["box.lan"]`.',
    )
    local_roots: list[Path] = Field(
        default_factory=list,
        description="Folders from which local models may be registered, as a JSON list of paths.",
    )
    auth: Literal["accounts", "off"] = Field(
        "accounts", description="`accounts`: people log in. `off`: whoever reaches the dashboard is an admin."
    )
    open_bind: bool = Field(
        False,
        description="Allow binding beyond loopback although nobody has an account, or accounts are off: for a trusted "
        "network only.",
    )
    trusted_proxies: list[str] = Field(
        default_factory=list,
        description="Addresses or networks of proxies whose X-Forwarded-For and -Proto are believed, as a JSON list.",
    )
    max_upload_bytes: int = Field(2 * 1024**3, gt=0, description="Largest dataset upload, in bytes.")
    spare_child: bool = Field(
        True,
        description="Keep a child process with imports done, so a job starts at once (~420 MB while idle, and a small "
        "model).",
    )
    keep_readings_hours: float = Field(
        1.0, ge=0.1, description="Age at which a job's memory readings are rolled up from 1 second to 10, in hours."
    )
    keep_readings_days: float = Field(
        1.0, gt=0, description="Age at which they are rolled up from 10 seconds to a minute, in days."
    )
    keep_gpu_events_minutes: float = Field(
        10.0, ge=2, description="How long readings stay in the event log, for pages that come back, in minutes."
    )
    keep_events_days: float = Field(
        30.0,
        gt=0,
        description="How long after its end a job's metrics and older log lines stay in the event log, in days.",
    )
    notify_hosts: list[str] = Field(
        default_factory=list,
        description="Hosts of this machine or of a private network that notifications may be sent to, as a JSON list.",
    )
    log_level: str = Field("INFO", description="Level of the log on stderr.")
    url: str | None = Field(None, description="Client only: address of a dashboard elsewhere.")
    token: str | None = Field(None, description="Client only: API token of a dashboard elsewhere.")

    @classmethod
    def load(cls) -> Settings:
        """Read them. Raises: InvalidInput that names each variable."""
        try:
            return cls()
        except ValidationError as error:
            raise InvalidInput([Fault(_variable(d["loc"][0]), d["msg"]) for d in error.errors()]) from None
        except SettingsError as error:  # a list that is not JSON
            named = re.search(r'field "(\w+)"', str(error))
            expected = 'A JSON list is expected, as in ["one", "two"].'
            raise InvalidInput(expected, field=_variable(named[1] if named else "*")) from None

    @cached_property
    def effective_database_url(self) -> str:
        """The SQLAlchemy URL in force."""
        return self.database_url or f"sqlite:///{self.home.resolve() / 'loradeck.db'}"
