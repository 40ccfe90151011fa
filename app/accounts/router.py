"""Pages of accounts: login, first set-up, one's own account, users, the audit log."""

from __future__ import annotations

from fastapi import APIRouter

from app.accounts import audit_log, login, own, setting_up, users

router = APIRouter(include_in_schema=False)
for part in (login, setting_up, own, users, audit_log):
    router.include_router(part.router)
