"""Who may do what: three roles, each with all that the one below it has. A token's scope is the same ladder."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """viewer: sees everything. member: also jobs, datasets, models. admin: also users, settings, secrets, audit log."""

    VIEWER = "viewer"
    MEMBER = "member"
    ADMIN = "admin"

    def includes(self, other: Role) -> bool:
        """Whether this role may do all that the other may."""
        return _LADDER.index(self) >= _LADDER.index(other)


_LADDER = list(Role)


class Scope(StrEnum):
    """How much of its user's role a token has at most."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    def limit(self, role: Role) -> Role:
        """What is left of a user's role."""
        most = _LADDER[list(Scope).index(self)]
        return role if most.includes(role) else most
