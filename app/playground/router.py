"""Pages of the playground: chats with what jobs have trained, and prompts kept as samples."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import Response

from app.core.chats import asking
from app.core.chats.models import ChatTurn
from app.core.chats.samples import drop_sample as drop_kept_sample
from app.core.chats.samples import keep_sample as keep_prompt
from app.core.errors import Conflict, Fault, InvalidInput, NotFound
from app.core.jobs.models import Job
from app.core.jobs.queue import get_job
from app.core.table import MAX_ID
from app.playground.asked import SIDES, Asked
from app.playground.view import PlaygroundView, list_sources, view_chat, view_playground
from app.web.dependencies import DatabaseDep, SessionDep, WriteSessionDep
from app.web.forms import Typed
from app.web.templating import redirect, render, render_region, wants_partial

router = APIRouter(include_in_schema=False)

Id = Annotated[int | None, Query(ge=1, le=MAX_ID)]


@router.get("/playground")
def show_playground(request: Request, session: SessionDep, job: Id = None, step: Id = None) -> Response:
    """A chat to be started with what a job has trained: the newest one's, unless one is named."""
    sources = list_sources(session)
    source = get_job(session, job) if job is not None else next(iter(sources), None)
    return _page(request, view_playground(session, source, step))


@router.get("/playground/state")
def show_chat_state(
    request: Request, session: SessionDep, job: Id = None, chat: Id = None, device: str = ""
) -> Response:
    """The region that says what has the GPU, and where the chat stands."""
    found = _chat(session, chat) if chat is not None else None
    source = get_job(session, job) if job is not None else None
    shown = view_chat(session, found) if found is not None else view_playground(session, source)
    return render(request, "playground/_state.html", {"view": shown, "device": device or shown.device})


@router.post("/playground")
def start_chat(request: Request, typed: Typed, database: DatabaseDep) -> Response:
    """Start a chat with its first question; where that is not possible, every fault beside its field."""
    job_id, step = _number(typed, "job"), _number(typed, "step")
    asked = Asked.of(typed)
    try:
        with database.write() as session:
            source = get_job(session, job_id or 0)
            device = asked.device or "auto"
            chat = asking.start_chat(session, source, asked.to_question(), step=step, device=device)
    except InvalidInput as error:
        with database.read() as session:
            view = view_playground(session, get_job(session, job_id or 0), step, None, typed, error.faults)
            return _page(request, view, 422)
    return redirect(request, request.app.url_path_for("show_chat", chat_id=chat.key))


@router.get("/playground/{chat_id}")
def show_chat(request: Request, chat_id: int, session: SessionDep) -> Response:
    """A chat with what has come of its answers."""
    return _page(request, view_chat(session, _chat(session, chat_id)))


@router.post("/playground/{chat_id}")
def ask(request: Request, chat_id: int, typed: Typed, database: DatabaseDep) -> Response:
    """The next question."""
    asked = Asked.of(typed)
    try:
        with database.write() as session:
            asking.ask(session, _chat(session, chat_id), asked.to_question(), device=asked.device or "auto")
    except (InvalidInput, Conflict) as error:
        faults = error.faults if isinstance(error, InvalidInput) else [Fault("prompt", error.message, error.advice)]
        with database.read() as session:
            return _page(request, view_chat(session, _chat(session, chat_id), typed, faults), 422)
    return _back(request, database, chat_id)


@router.post("/playground/{chat_id}/stop")
def stop_answer(request: Request, chat_id: int, database: DatabaseDep) -> Response:
    """End the answer in hand where it is, or withdraw the question that waits."""
    with database.write() as session:
        asking.stop_answer(session, _chat(session, chat_id))
    return _back(request, database, chat_id)


@router.post("/playground/{chat_id}/end")
def end_chat(request: Request, chat_id: int, database: DatabaseDep) -> Response:
    """Let the model go; the next question loads it again."""
    with database.write() as session:
        asking.end_chat(session, _chat(session, chat_id))
    return _back(request, database, chat_id)


@router.post("/playground/{chat_id}/cpu")
def move_chat_to_cpu(request: Request, chat_id: int, database: DatabaseDep) -> Response:
    """Answer on the CPU instead of waiting for the GPU."""
    with database.write() as session:
        asking.move_to_cpu(session, _chat(session, chat_id))
    return _back(request, database, chat_id)


@router.post("/playground/{chat_id}/samples")
def keep_sample(request: Request, chat_id: int, database: DatabaseDep, turn: Annotated[int, Form()]) -> Response:
    """Keep a question's prompt as a sample."""
    with database.write() as session:
        found = session.get(ChatTurn, turn) if 0 < turn <= MAX_ID else None
        if found is None or found.job_id != _chat(session, chat_id).id:
            raise NotFound(f"Chat {chat_id} has no question {turn}.")
        try:
            keep_prompt(session, found.prompt)
        except (InvalidInput, Conflict) as error:
            fault = Fault("samples", f"the question {error.message}", error.advice)
            return _page(request, view_chat(session, _chat(session, chat_id), faults=[fault]), 422)
    return _back(request, database, chat_id)


@router.post("/playground/samples/{sample_id}/drop")
def drop_sample(
    request: Request, sample_id: int, session: WriteSessionDep, chat: Annotated[int | None, Form()] = None
) -> Response:
    """Keep a prompt no longer."""
    drop_kept_sample(session, sample_id)
    if chat is None:
        return redirect(request, request.app.url_path_for("show_playground"))
    return redirect(request, request.app.url_path_for("show_chat", chat_id=_chat(session, chat).key))


def _chat(session: SessionDep, chat_id: int) -> Job:
    """Raises: NotFound."""
    chat = get_job(session, chat_id)
    asking.require_chat(chat)
    return chat


def _back(request: Request, database: DatabaseDep, chat_id: int) -> Response:
    """The region anew for htmx, else the page."""
    if not wants_partial(request):
        return redirect(request, request.app.url_path_for("show_chat", chat_id=chat_id))
    with database.read() as session:
        return _page(request, view_chat(session, _chat(session, chat_id)))


def _page(request: Request, view: PlaygroundView, status_code: int = 200) -> Response:
    context = {"view": view, "device": view.device, "sides": SIDES}
    return render_region(request, "playground/_playground.html", "playground/show.html", context, status_code)


def _number(typed: Typed, name: str) -> int | None:
    text = typed.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None
