"""A YAML that was pasted or uploaded fills the new-job form: Loradeck's own, axolotl's or LLaMA-Factory's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from starlette.datastructures import UploadFile

from app.core.errors import InvalidInput
from app.core.jobs.recipes.read import SOURCES, read_recipe
from app.core.jobs.spec import parse_spec
from app.core.jobs.submit import check_values
from app.core.strict_yaml import MOST_CHARACTERS
from app.jobs.defaults import default_references
from app.jobs.page import form_context
from app.web.dependencies import FolderDep, SessionDep
from app.web.templating import render

MOST_BYTES = 4 * MOST_CHARACTERS  # of a text in UTF-8

router = APIRouter(include_in_schema=False, max_body_size=2 * MOST_BYTES)  # the text may come pasted and as a file


@dataclass(frozen=True, slots=True)
class Given:
    """What was posted; the file goes before what was pasted."""

    text: str
    source: str
    broken: str = ""  # why the file is no text


async def read_given(request: Request) -> Given:
    """(Async, since the body is read; the handler depends on it and stays `def`.)"""
    async with request.form(max_files=1, max_fields=10, max_part_size=MOST_BYTES) as form:
        file, pasted, source = form.get("file"), form.get("yaml", ""), str(form.get("source", "auto"))
        content = await file.read() if isinstance(file, UploadFile) else b""
    if not content:
        return Given(str(pasted), source)
    try:
        return Given(content.decode("utf-8-sig"), source)
    except UnicodeDecodeError:
        return Given(str(pasted), source, "The file is not UTF-8 text.")


@router.post("/jobs/new/import")
def import_yaml(
    request: Request, given: Annotated[Given, Depends(read_given)], session: SessionDep, folder: FolderDep
) -> Response:
    """The form filled in, with every fault beside its field and an account of every key; else why it is no job."""
    asked = {"text": given.text, "source": given.source if given.source in SOURCES else "auto"}
    try:
        if given.broken:
            raise InvalidInput(given.broken)
        if not given.text.strip():
            raise InvalidInput("Choose a file, or paste its text.")
        recipe = read_recipe(given.text, asked["source"])
    except InvalidInput as error:
        problems = [fault.message for fault in error.faults]
        context = form_context(session, folder.home, default_references(session))
        return render(request, "jobs/new.html", {**context, "asked": {**asked, "problems": problems}}, 422)
    faults = [*recipe.faults, *check_values(session, recipe.values)]
    context = form_context(session, folder.home, _as_typed(recipe.values), faults)
    return render(request, "jobs/new.html", {**context, "recipe": recipe}, 422 if faults else 200)


def _as_typed(values: dict[str, Any]) -> dict[str, Any]:
    """A valid spec's own values, so that `2e-4`, which YAML takes for text, does not look like a change from 0.0002."""
    try:
        return parse_spec(values).model_dump(mode="json")
    except InvalidInput:
        return values
