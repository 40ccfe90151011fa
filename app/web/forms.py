"""Posted forms as text."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request


async def read_form(request: Request) -> dict[str, str]:
    """The posted text fields, as typed. (Async, since the body is read; handlers depend on it and stay `def`.)"""
    async with request.form(max_files=0, max_fields=200) as form:
        return {key: value for key, value in form.items() if isinstance(value, str)}


Typed = Annotated[dict[str, str], Depends(read_form)]
