"""`loradeck artifacts …`, `loradeck merge`, `loradeck generate`."""

from __future__ import annotations

import json as json_format
import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from app.cli.client import Client
from app.cli.downloads import check_file, check_zip, downloading
from app.cli.jobs import show_ended, show_job, wait_for
from app.cli.output import EXIT_FAILED, AsJson, print_json, print_table
from app.core.errors import InvalidInput, NotFound
from app.core.jobs.sampling import LARGEST_SEED, MOST_NEW_TOKENS

app = typer.Typer(help="List and download what jobs produced.", no_args_is_help=True)
top = typer.Typer()


@app.command("list")
def list_all(job: int, *, json: AsJson = False) -> None:
    """What a job produced, and what was merged from it."""
    artifacts = Client().get(f"/jobs/{job}/artifacts")
    shown = ({**each, "verified": _verified(each["verified"])} for each in artifacts)
    print_json(artifacts) if json else print_table(shown, ["kind", "step", "bytes", "verified", "kept"])


@app.command("keep")
def keep(
    job: int,
    step: Annotated[int, typer.Argument(help="The checkpoint's step.")],
    release: Annotated[bool, typer.Option("--release", help="Let it go with the others again.")] = False,
    *,
    json: AsJson = False,
) -> None:
    """Keep a checkpoint, however many come after it."""
    kept = Client().post(f"/jobs/{job}/artifacts/checkpoint/{step}/keep", {"kept": not release})
    print_json(kept) if json else print(f"step {step}: {'kept' if kept['kept'] else 'not kept any more'}")


def _verified(answers: bool | None) -> bool | str:
    """Whether the folder was loaded again and answers as it should; most are known by their files' hashes alone."""
    return "hashes" if answers is None else answers


@app.command("download")
def download(
    job: int,
    kind: Annotated[str, typer.Argument(help="adapter, model, checkpoint, merged or gguf")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.")],
    file: Annotated[str | None, typer.Option(help="One file of it, by the path that `list --json` shows.")] = None,
    step: Annotated[int | None, typer.Option(help="A checkpoint's step.")] = None,
    artifact_id: Annotated[int | None, typer.Option("--id", help="One that is not the newest of its kind.")] = None,
    *,
    json: AsJson = False,
) -> None:
    """Download an artifact as a zip, or one file of it. It goes on where it broke off, and is verified.

    The file appears under its name only when it is whole and as the dashboard lists it.
    """
    path, client = f"/jobs/{job}/artifacts/{kind}", Client()
    artifact = _find(client, job, kind, step, artifact_id)
    if artifact is None:
        with client.stream(path, step=step, id=artifact_id):  # says what there is
            raise NotFound(f"Job {job} has no {kind}.")
    params = {"id": artifact["id"]}
    if file is None:
        with downloading(path, params, output) as partial:
            check_zip(partial, artifact["files"])
    else:
        with downloading(f"{path}/files/{quote(file)}", params, output) as partial:
            check_file(partial, next(each for each in artifact["files"] if each["path"] == file))
    _show_download(artifact, file, output, json)


@app.command("delete")
def delete(
    job: int,
    kind: Annotated[str | None, typer.Argument(help="Default: all that the job made, and its training states.")] = None,
    step: Annotated[int | None, typer.Option(help="A checkpoint's step.")] = None,
    artifact_id: Annotated[int | None, typer.Option("--id", help="One that is not the newest of its kind.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    *,
    json: AsJson = False,
) -> None:
    """Delete an artifact, or all files of a job. Its history stays: spec, metrics, log and receipt."""
    client = Client()
    artifacts = client.get(f"/jobs/{job}/artifacts")
    if kind is None and (step is not None or artifact_id is not None):
        raise InvalidInput("Name the kind of what is to be deleted, too.", field="kind")
    chosen = [a for a in artifacts if kind in (None, a["kind"]) and artifact_id in (None, a["id"])]
    chosen = [a for a in chosen if step in (None, a["step"])]
    chosen = chosen if kind is None else chosen[:1]
    if kind is not None and not chosen:
        there = ", ".join(sorted({_called(a) for a in artifacts})) or "nothing"
        asked = f" at step {step}" if step is not None else ""
        raise NotFound(f"Job {job} has no {kind}{asked}.", advice=f"It has: {there}.")
    if not yes:
        what = f"the {_called(chosen[0])} of job {job}" if kind else f"all {len(chosen)} artifacts of job {job}"
        typer.confirm(f"Delete {what}, {sum(a['bytes'] for a in chosen):,} bytes?", abort=True, err=True)
    path = f"/jobs/{job}/artifacts"
    freed = client.delete(f"{path}/{kind}", id=chosen[0]["id"]) if kind else client.delete(path)
    print_json(freed) if json else print(f"{freed['freed_bytes']:,} bytes freed")


@app.command("push")
def push(
    job: int,
    kind: Annotated[str, typer.Argument(help="adapter, model, checkpoint, merged or gguf")],
    repo: Annotated[str, typer.Option(help="Where to, as owner/name.")],
    public: Annotated[bool, typer.Option("--public", help="For everybody to see; by default it is private.")] = False,
    existing: Annotated[
        bool, typer.Option("--existing", help="Add a commit to a repository that holds files already.")
    ] = False,
    step: Annotated[int | None, typer.Option(help="A checkpoint's step.")] = None,
    artifact_id: Annotated[int | None, typer.Option("--id", help="One that is not the newest of its kind.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it has ended.")] = False,
    *,
    json: AsJson = False,
) -> None:
    """Upload an artifact to the Hugging Face hub, as a job. It needs a token: loradeck secrets set hf_token."""
    client = Client()
    body = {"repo": repo, "private": not public, "existing": existing}
    path = f"/jobs/{job}/artifacts/{quote(kind, safe='')}/push"
    pushing = client.post(path, body, params=_present({"step": step, "id": artifact_id}))
    show_ended(client, pushing, wait, json)


def _called(artifact: dict[str, Any]) -> str:
    at_step = artifact["kind"] == "checkpoint" and artifact["step"] is not None
    return f"checkpoint at step {artifact['step']}" if at_step else str(artifact["kind"])


def _present(params: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def _conversation(file: Path | None) -> dict[str, Any]:
    """{messages}, or nothing without a file. Raises: InvalidInput."""
    if file is None:
        return {}
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        messages = json_format.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{file} cannot be read as JSON: {error}", field="messages") from None
    if not isinstance(messages, list):
        raise InvalidInput(f"{file} holds no list of turns.", field="messages")
    return {"messages": messages}


def _find(client: Client, job: int, kind: str, step: int | None, artifact_id: int | None) -> dict[str, Any] | None:
    """The newest of a kind, of one step or with one id if asked."""
    of_kind = (a for a in client.get(f"/jobs/{job}/artifacts") if a["kind"] == kind)
    return next((a for a in of_kind if step in (None, a["step"]) and artifact_id in (None, a["id"])), None)


def _show_download(artifact: dict[str, Any], file: str | None, output: Path, as_json: bool) -> None:
    size = output.stat().st_size
    known = {name: artifact[name] for name in ("kind", "bytes", "files", "verified")}
    came = {"zip_bytes": size} if file is None else {"file": file, "file_bytes": size}
    result = {**known, "path": str(output), **came}
    print_json(result) if as_json else print(f"{output}: {size:,} bytes, each file as its SHA-256 says")


@top.command("merge")
def merge(
    job: int,
    dtype: Annotated[str, typer.Option(help="bf16, fp16 or fp32")] = "bf16",
    onto: Annotated[
        str, typer.Option(help="trained, or of QLoRA: original (the 16-bit weights that its base was quantised from)")
    ] = "trained",
    checkpoint: Annotated[int | None, typer.Option(help="A kept checkpoint's step, in the adapter's place.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it has ended.")] = False,
    *,
    json: AsJson = False,
) -> None:
    """Merge a job's adapter into its base model, as a job of its own."""
    client = Client()
    merging = client.post(f"/jobs/{job}/merge", {"dtype": dtype, "onto": onto, "checkpoint": checkpoint})
    show_ended(client, merging, wait, json)


@top.command("export")
def export(
    job: int,
    format: Annotated[str, typer.Option(help="gguf: one file for llama.cpp and Ollama, with a Modelfile.")] = "gguf",
    quantization: Annotated[str, typer.Option(help="f16 or q8_0")] = "q8_0",
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it has ended.")] = False,
    *,
    json: AsJson = False,
) -> None:
    """Export a job's merged model, as a job of its own."""
    client = Client()
    exporting = client.post(f"/jobs/{job}/export", {"format": format, "quantization": quantization})
    show_ended(client, exporting, wait, json)


@top.command("generate")
def generate(
    job: int,
    prompt: Annotated[str, typer.Option(help="What to ask.")] = "",
    messages: Annotated[
        Path | None, typer.Option(help="In its place a conversation: a JSON file of [{role, content}]; - reads it.")
    ] = None,
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
    body = {"prompt": prompt, "base": base, "system": system, **chosen, **_conversation(messages)}
    job_id = client.post(f"/jobs/{job}/generate", body)["id"]
    answered = wait_for(client, job_id, None)
    if answered["status"] != "completed":
        show_job(answered, json)
        raise typer.Exit(EXIT_FAILED)
    answer = {name: answered["summary"][name] for name in ("text", "tokens", "stop_reason")}
    print_json(answer) if json else print(answer["text"])
