"""`loradeck artifacts …`, `loradeck merge`, `loradeck generate`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import httpx
import typer

from app.cli.client import Client
from app.cli.jobs import show_job, wait_for
from app.cli.output import EXIT_FAILED, AsJson, print_json, print_table
from app.core.errors import InvalidInput
from app.core.jobs.sampling import LARGEST_SEED, MOST_NEW_TOKENS

app = typer.Typer(help="List and download what jobs produced.", no_args_is_help=True)
top = typer.Typer()


@app.command("list")
def list_all(job: int, *, json: AsJson = False) -> None:
    """What a job produced, and what was merged from it."""
    artifacts = Client().get(f"/jobs/{job}/artifacts")
    shown = ({**each, "verified": _verified(each["verified"])} for each in artifacts)
    print_json(artifacts) if json else print_table(shown, ["kind", "step", "bytes", "verified"])


def _verified(answers: bool | None) -> bool | str:
    """Whether the folder was loaded again and answers as it should; most are known by their files' hashes alone."""
    return "hashes" if answers is None else answers


@app.command("download")
def download(
    job: int,
    kind: Annotated[str, typer.Argument(help="adapter, model, checkpoint or merged")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The zip file to write.")],
    step: Annotated[int | None, typer.Option(help="A checkpoint's step.")] = None,
    *,
    json: AsJson = False,
) -> None:
    """Download an artifact as a zip. The file appears under its name only when it is whole."""
    if not output.resolve().parent.is_dir():
        raise InvalidInput(f"The folder of {output} does not exist.", field="output")
    if output.is_dir():
        raise InvalidInput(f"{output} is a folder; name the zip file to write.", field="output")
    client = Client()
    with client.stream(f"/jobs/{job}/artifacts/{kind}", step=step) as response:
        _save(response, output)
    of_kind = [a for a in client.get(f"/jobs/{job}/artifacts") if a["kind"] == kind and step in (None, a["step"])]
    known = {name: of_kind[0][name] for name in ("kind", "bytes", "files", "verified")}
    result = {**known, "path": str(output), "zip_bytes": output.stat().st_size}
    print_json(result) if json else print(f"{output}: {result['zip_bytes']:,} bytes")


def _save(response: httpx.Response, output: Path) -> None:
    partial = output.with_name(output.name + ".part")
    try:
        with partial.open("wb") as file:
            for chunk in response.iter_bytes():
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)


@top.command("merge")
def merge(
    job: int,
    dtype: Annotated[str, typer.Option(help="bf16, fp16 or fp32")] = "bf16",
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it has ended.")] = False,
    *,
    json: AsJson = False,
) -> None:
    """Merge a job's adapter into its base model, as a job of its own."""
    client = Client()
    merging = client.post(f"/jobs/{job}/merge", {"dtype": dtype})
    if wait:
        merging = wait_for(client, merging["id"], None)
    show_job(merging, json)
    if wait and merging["status"] != "completed":
        raise typer.Exit(EXIT_FAILED)


@top.command("generate")
def generate(
    job: int,
    prompt: Annotated[str, typer.Option(help="What to ask.")],
    base: Annotated[bool, typer.Option("--base", help="Ask the base model, as it was before training.")] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1, max=MOST_NEW_TOKENS)] = 128,
    temperature: Annotated[float, typer.Option(min=0, max=5, help="0 takes the likeliest token each time.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Draw from the likeliest tokens that add up to this share.")] = 1.0,
    seed: Annotated[int | None, typer.Option(min=0, max=LARGEST_SEED, help="Draws the same answer again.")] = None,
    system: Annotated[str, typer.Option(help="A system prompt.")] = "",
    *,
    json: AsJson = False,
) -> None:
    """One answer, of a job's tuned model or of its base."""
    client = Client()
    chosen = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p, "seed": seed}
    body = {"prompt": prompt, "base": base, "system": system, **chosen}
    job_id = client.post(f"/jobs/{job}/generate", body)["id"]
    answered = wait_for(client, job_id, None)
    if answered["status"] != "completed":
        show_job(answered, json)
        raise typer.Exit(EXIT_FAILED)
    answer = {name: answered["summary"][name] for name in ("text", "tokens", "stop_reason")}
    print_json(answer) if json else print(answer["text"])
