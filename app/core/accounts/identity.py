"""On whose behalf a request, or a command, acts."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum

from app.core.accounts.roles import Role


class Kind(StrEnum):
    """How somebody is known."""

    ANONYMOUS = "anonymous"
    SESSION = "session"  # logged in with a browser
    TOKEN = "token"  # a user's API token
    INSTALLATION = "installation"  # the token in server.json: whoever can read this box's data folder
    BOX = "box"  # accounts are off


@dataclass(frozen=True, slots=True)
class Identity:
    """`credential` is the hash of the session or token, which can be ended at any time."""

    kind: Kind
    role: Role | None = None
    name: str | None = None
    user_id: int | None = None
    credential: str | None = None

    def may(self, role: Role) -> bool:
        """Whether this is enough for what needs that role."""
        return self.role is not None and self.role.includes(role)

    @property
    def label(self) -> str:
        """As the audit log names it."""
        return self.name or self.kind.value


ANONYMOUS = Identity(Kind.ANONYMOUS)
BOX = Identity(Kind.BOX, Role.ADMIN)
INSTALLATION = Identity(Kind.INSTALLATION, Role.ADMIN)

# Who acts, for whatever is written meanwhile: a job takes its owner from here.
acting: ContextVar[Identity] = ContextVar("acting", default=ANONYMOUS)
