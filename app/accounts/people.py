"""What handlers of one's own account ask for: the person who is logged in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from app.core.accounts.models import User
from app.core.accounts.users import get_user_by_id
from app.core.errors import Conflict
from app.web.dependencies import SessionDep
from app.web.identities import identity_of


@dataclass(frozen=True, slots=True)
class Person:
    """A user at a browser; `credential` is the hash of that login."""

    user: User
    credential: str


def get_person(request: Request, session: SessionDep) -> Person:
    """Raises: Conflict where accounts are off."""
    identity = identity_of(request)
    if identity.user_id is None or identity.credential is None:
        raise Conflict(
            "Accounts are off here: nobody is logged in.", advice="Set LORADECK_AUTH=accounts to switch them on."
        )
    return Person(get_user_by_id(session, identity.user_id), identity.credential)


PersonDep = Annotated[Person, Depends(get_person, scope="function")]
