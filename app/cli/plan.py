"""`loradeck plan`: what a job would take, before it is launched."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.client import Client
from app.cli.output import AsJson, print_json
from app.cli.recipes import read_spec_file
from app.core.jobs.shown import in_words
from app.core.jobs.spec import parse_yaml
from app.core.planning.config import load_config
from app.core.planning.plan import Box, make_plan

app = typer.Typer()

_GIB = 1 << 30


@app.command("plan")
def plan(
    spec: Path,
    vram_gb: Annotated[
        float | None, typer.Option(min=0.001, max=10_000, help="A card to hold it against, in GiB, such as 24.")
    ] = None,
    *,
    json: AsJson = False,
) -> None:
    """Parameters, peak memory by component, and what is doubtful about a job, without weights or a GPU.

    Where the YAML's base_model is a folder with a config.json, or such a file, no dashboard need be running.
    """
    text = read_spec_file(spec)
    found = _plan_here(text, vram_gb) or Client().post("/plan", {"yaml": text, "vram_gb": vram_gb})
    print_json(found) if json else _print(found)


def _plan_here(text: str, vram_gb: float | None) -> dict[str, Any] | None:
    """From a config on this machine; None where the base model is the name of one that a dashboard has."""
    spec = parse_yaml(text)
    path = Path(spec.base_model).expanduser()
    if not path.exists() and not (spec.base_model.startswith(".") or path.suffix == ".json"):
        return None
    box = Box(round(vram_gb * _GIB), "the card that was named") if vram_gb else Box()
    return make_plan(load_config(path), spec, box).to_json()


def _print(plan: dict[str, Any]) -> None:
    trainable, everything = plan["trainable_parameters"], plan["all_parameters"]
    print(f"{plan['method']}: {trainable:,} of {everything:,} parameters learn ({trainable / everything:.2%})")
    print(f"saved adapter: {_gib(plan['adapter_bytes'])}; disk for checkpoints and a merge: {_gib(plan['disk_bytes'])}")
    if plan["components"] is None:
        print(f"peak memory: unknown: {plan['not_planned']}")
    else:
        print(f"peak memory: {_gib(plan['peak_bytes'])}{_verdict(plan)}")
        for name, size in plan["components"].items():
            print(f"  {name:<12} {_gib(size):>10}")
        if plan["peak_bytes_with_plain_loss"]:
            plain = f"{_gib(plan['peak_bytes_with_plain_loss'])}{_spare(plan['spare_bytes_with_plain_loss'])}"
            print(f"  with the logits of every position at once, as is usual elsewhere: {plain}")
    print(f"steps: {plan['steps'] or 'unknown'}; time: {_time(plan)}")
    for assumption in plan["assumptions"]:
        print(f"  assumes {assumption}")
    for warning in plan["warnings"]:
        fix = in_words(warning["fix"])
        print(f"⚠ {warning['code']}: {warning['message']}" + (f" Fix: {fix}." if fix else ""))


def _verdict(plan: dict[str, Any]) -> str:
    if plan["verdict"] is None:
        return ""
    return f": {plan['verdict']} in {_gib(plan['vram_bytes'])} ({plan['vram_source']}){_spare(plan['spare_bytes'])}"


def _spare(size: int | None) -> str:
    """By how much it fits, or does not."""
    if size is None:
        return ""
    return f", {_gib(size)} to spare" if size >= 0 else f", {_gib(-size)} too much"


def _time(plan: dict[str, Any]) -> str:
    if plan["seconds"] is None:
        return str(plan["seconds_reason"])
    return f"about {plan['seconds']:,} s, {plan['seconds_reason']}"


def _gib(size: int) -> str:
    return f"{size / _GIB:.2f} GiB" if size >= _GIB / 10 else f"{size / 2**20:.1f} MiB"
