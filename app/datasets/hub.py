"""Pages of datasets of the hub: add one (or one that failed again), watch its import in the list."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import Response

from app.core.datasets.columns import parse_columns
from app.core.datasets.hub import HubReference, add_from_hub
from app.core.errors import Conflict, Fault, InvalidInput
from app.datasets.view import HubForm, list_context, page_context
from app.web.dependencies import DatabaseDep, SessionDep, SettingsDep
from app.web.templating import redirect, render, render_region

router = APIRouter(include_in_schema=False)

Text = Annotated[str, Form(max_length=2000)]


@router.get("/datasets/list")
def show_dataset_list(request: Request, session: SessionDep) -> Response:
    """The region with the registered datasets."""
    return render(request, "datasets/_list.html", list_context(session))


@router.post("/datasets/hub")
def create_hub_dataset(
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
    hub_id: Text = "",
    config: Text = "",
    split: Text = "",
    revision: Text = "",
    columns: Text = "",
    name: Text = "",
) -> Response:
    """Register a hub dataset and queue its import, also of a name whose import failed; else the form again."""
    try:
        pairs = parse_columns([pair.strip() for pair in columns.split(",")])
        with database.write() as session:
            reference = HubReference(hub_id, config, split, revision)
            dataset = add_from_hub(session, reference, name.strip() or None, pairs)
    except (InvalidInput, Conflict) as error:
        values = {"hub_id": hub_id, "config": config, "split": split, "revision": revision}
        form = HubForm({**values, "columns": columns, "name": name}, _faults(error))
        with database.read() as session:
            context = page_context(session, settings.max_upload_bytes, hub=form)
        return render_region(request, "datasets/_hub.html", "datasets/list.html", context, 422)
    return redirect(request, request.app.url_path_for("show_dataset", dataset_id=dataset.key))


def _faults(error: InvalidInput | Conflict) -> list[Fault]:
    """Each by the form's own field."""
    if isinstance(error, Conflict):
        return [Fault(error.field or "name", error.message, error.advice)]
    return [
        Fault("columns" if each.field == "column" else each.field, each.message, each.advice) for each in error.faults
    ]
