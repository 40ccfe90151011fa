"""Tables of accounts. No secret is stored: passwords as Argon2id, session ids and tokens as SHA-256."""

from __future__ import annotations

from sqlmodel import Field

from app.core.accounts.roles import Role, Scope
from app.core.table import Numbered, Table, enum_field


class User(Numbered, table=True):
    """Somebody who logs in."""

    __tablename__ = "user"
    __table_args__ = {"sqlite_autoincrement": True}

    name: str = Field(unique=True)  # in lower case
    password_hash: str
    role: Role = enum_field(Role, "role", default=Role.VIEWER)
    created_at: float


class LoginSession(Table, table=True):
    """One browser that is logged in, until `expires_at` or a week without a request."""

    __tablename__ = "login_session"

    id_hash: str = Field(primary_key=True)
    user_id: int = Field(foreign_key="user.id", index=True)
    created_at: float
    seen_at: float
    expires_at: float
    user_agent: str
    address: str


class ApiToken(Numbered, table=True):
    """A script's key. `prefix` is its public beginning, by which people tell tokens apart."""

    __tablename__ = "api_token"
    __table_args__ = {"sqlite_autoincrement": True}

    user_id: int = Field(foreign_key="user.id", index=True)
    name: str
    prefix: str
    token_hash: str = Field(unique=True)
    scope: Scope = enum_field(Scope, "scope")
    created_at: float
    used_at: float | None = None
    revoked_at: float | None = None


class AuditEntry(Numbered, table=True):
    """Who did what, on what, from where. Rows are only added; the oldest are pruned."""

    __tablename__ = "audit_entry"
    __table_args__ = {"sqlite_autoincrement": True}

    time: float = Field(index=True)
    actor: str
    action: str
    subject: str
    address: str
