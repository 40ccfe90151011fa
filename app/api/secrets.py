"""Secrets: which are set, set one, remove one. None is ever sent back."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, SecretStr

from app.core.secrets import SECRETS, SecretView, describe_secret, remove_secret, set_secret
from app.web.dependencies import FolderDep

router = APIRouter(prefix="/secrets", tags=["secrets"])


class SecretIn(BaseModel):
    """A secret to be stored."""

    value: SecretStr


@router.get("", name="api_list_secrets")
def list_all(folder: FolderDep) -> list[SecretView]:
    """Every secret that can be set; `shown` is masked."""
    return [describe_secret(folder, name) for name in SECRETS]


@router.put("/{name}", name="api_set_secret")
def set_one(name: str, body: SecretIn, folder: FolderDep) -> SecretView:
    """Store a secret in place of an earlier one."""
    return set_secret(folder, name, body.value.get_secret_value())


@router.delete("/{name}", name="api_remove_secret")
def remove(name: str, folder: FolderDep) -> SecretView:
    """Forget a stored secret; one of the environment stays."""
    return remove_secret(folder, name)
