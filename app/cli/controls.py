"""`loradeck jobs cancel`, `pause`, `resume`, `save`, `sample`, `retry`, `extend`, `move`, and `loradeck queue …`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app.cli.client import Client
from app.cli.jobs import show_job
from app.cli.output import AsJson, print_fields, print_json
from app.core.jobs.status import OnFailure

app = typer.Typer()  # of `loradeck jobs`
queue = typer.Typer(help="Pause and resume the queue for the GPU.", no_args_is_help=True)

_QUEUE_FIELDS = ["paused", "pause_reason", "on_failure"]


@app.command("cancel")
def cancel(
    job: int,
    save: Annotated[bool, typer.Option("--save", help="Save what was trained first.")] = False,
    *,
    json: AsJson = False,
) -> None:
    """Cancel a job in any state."""
    show_job(Client().post(f"/jobs/{job}/cancel", {"save": save}), json)


@app.command("pause")
def pause(job: int, *, json: AsJson = False) -> None:
    """Hold a waiting job; have a training that runs save its state and end, so that the GPU is free."""
    show_job(Client().post(f"/jobs/{job}/pause"), json)


@app.command("resume")
def resume(job: int, *, json: AsJson = False) -> None:
    """Let a paused job go on; queue a failed or cancelled training, to go on from its newest training state."""
    show_job(Client().post(f"/jobs/{job}/resume"), json)


@app.command("save")
def save_now(job: int, *, json: AsJson = False) -> None:
    """Have a running training save a checkpoint after the step in hand, and go on."""
    show_job(Client().post(f"/jobs/{job}/save"), json)


@app.command("sample")
def sample_now(job: int, *, json: AsJson = False) -> None:
    """Have a running training answer its sample prompts after the step in hand, and go on."""
    show_job(Client().post(f"/jobs/{job}/sample"), json)


@app.command("retry")
def retry(
    job: int,
    from_step: Annotated[int, typer.Option(min=0, help="Of a kept training state; default: from the start.")] = 0,
    *,
    json: AsJson = False,
) -> None:
    """Run a training again as the same job. What it saved stays until that is replaced."""
    show_job(Client().post(f"/jobs/{job}/retry", {"from_step": from_step}), json)


@app.command("extend")
def extend(
    job: int,
    epochs: Annotated[float | None, typer.Option(help="So many more passes over the training rows.")] = None,
    steps: Annotated[int | None, typer.Option(help="So many more optimizer steps.")] = None,
    *,
    json: AsJson = False,
) -> None:
    """Train a completed job longer, from the state of its end."""
    show_job(Client().post(f"/jobs/{job}/extend", {"epochs": epochs, "steps": steps}), json)


@app.command("move")
def move(
    job: int,
    to: Annotated[int, typer.Option(min=1, help="Place in the queue, from 1; beyond the end: the last one.")],
    *,
    json: AsJson = False,
) -> None:
    """Give a waiting job another place in the queue."""
    show_job(Client().post(f"/jobs/{job}/move", {"to": to}), json)


@queue.command("show")
def show_queue(*, json: AsJson = False) -> None:
    """Whether jobs for the GPU start, and what follows a failure."""
    _print_queue(Client().get("/queue"), json)


@queue.command("pause")
def pause_queue(*, json: AsJson = False) -> None:
    """Start no training and no answer on the GPU any more; what runs goes on, and so do merges, imports and checks."""
    _print_queue(Client().post("/queue/pause"), json)


@queue.command("resume")
def resume_queue(*, json: AsJson = False) -> None:
    """Start jobs again."""
    _print_queue(Client().post("/queue/resume"), json)


@queue.command("on-failure")
def set_on_failure(what: OnFailure, *, json: AsJson = False) -> None:
    """Choose what follows a failed training: continue with the next job, or pause the queue."""
    _print_queue(Client().patch("/queue", {"on_failure": what.value}), json)


def _print_queue(state: dict[str, Any], as_json: bool) -> None:
    print_json(state) if as_json else print_fields(state, _QUEUE_FIELDS)
