"""What came of a training, in the words of its page: from the job's summary, and from its evals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.web.templating import format_bytes, format_number


@dataclass(frozen=True, slots=True)
class Fact:
    """A label with its value, and what else there is to say of it."""

    label: str
    value: str
    note: str = ""


def describe_outcome(
    spec: Mapping[str, Any], summary: Mapping[str, Any], evals: Sequence[tuple[int, float | None]]
) -> list[Fact]:
    """Facts in the order of their weight; what the summary does not hold is left out. `evals` are (step, eval loss)."""
    return [
        *_evals(spec, summary, evals),
        *_rewards(summary),
        *_tokens(summary),
        *_rows(spec, summary),
        *_model(spec, summary),
    ]


def _evals(
    spec: Mapping[str, Any], summary: Mapping[str, Any], evals: Sequence[tuple[int, float | None]]
) -> Iterator[Fact]:
    trained = [(value, step) for step, value in evals if step > 0 and value is not None]
    if trained:
        loss, step = min(trained)
        saved, last = summary.get("saved_step"), max(at for _, at in trained)
        note = "" if saved is None or step == last else f"what was saved is of step {saved:,}"
        note = "what was saved" if saved == step != last else note
        yield Fact("best eval loss", f"{format_number(loss)} at step {step:,}", note)
    if summary.get("stopped_by_user"):
        yield Fact("stopped, saved", f"at step {summary['steps']:,}", "as asked; what was trained until then is saved")
    if summary.get("stopped_early"):
        patience = spec.get("early_stopping_patience")
        yield Fact("stopped early", f"at step {summary['steps']:,}", f"{patience} evals without a better eval loss")
    if summary.get("resumed_from_step") is not None:
        yield Fact("resumed", f"from step {summary['resumed_from_step']:,}", f"attempt {summary['attempts']}")


def _rewards(summary: Mapping[str, Any]) -> Iterator[Fact]:
    for name, label in (("rewards_margin", "reward margin"), ("rewards_accuracy", "reward accuracy")):
        if summary.get(f"eval_{name}") is not None:
            yield Fact(label, format_number(summary[f"eval_{name}"]), "of held-out pairs")
        elif summary.get(name) is not None:
            yield Fact(label, format_number(summary[name]), "of the last steps")


def _tokens(summary: Mapping[str, Any]) -> Iterator[Fact]:
    if "tokens" in summary:
        yield Fact("tokens read", format_number(summary["tokens"]), "padding not counted")
    if "trained_tokens_per_epoch" in summary:
        yield Fact("tokens learned", format_number(summary["trained_tokens_per_epoch"]), "per pass over the data")
    if "tokens_per_second" in summary:
        yield Fact("tokens/s", format_number(summary["tokens_per_second"]), "mean, padding not counted")


def _rows(spec: Mapping[str, Any], summary: Mapping[str, Any]) -> Iterator[Fact]:
    what = f"{summary.get('row_unit', 'sequence')}s"
    for key, label in (("rows_train", f"{what} trained on"), ("rows_eval", f"{what} held out")):
        if key in summary:
            left = summary.get("eval_rows_left_to_train") if key == "rows_eval" else None
            note = f"eval_max_rows; {format_number(left)} more rows are trained on instead" if left else ""
            yield Fact(label, format_number(summary[key]), note)
    of_rows = (
        ("rows_dropped", "dropped", "too long, or nothing to learn left"),
        ("rows_truncated", "cut", f"to {spec['max_length']:,} tokens"),
        ("rows_split", "split", "into several sequences"),
    )
    for key, label, note in of_rows:
        if summary.get(key):
            named = summary.get("first_rows", {}).get(key.removeprefix("rows_"), [])
            more = ", …" if summary[key] > len(named) else ""
            which = f": {', '.join(map(str, named))}{more}" if named else ""
            yield Fact(f"rows {label}", format_number(summary[key]), note + which)
    if "packs" in summary:
        filled = f"{format_number(summary['rows_per_pack'])} rows each, {summary['pack_density']:.0%} filled"
        yield Fact("packs", format_number(summary["packs"]), filled)


def _model(spec: Mapping[str, Any], summary: Mapping[str, Any]) -> Iterator[Fact]:
    trainable, everything = summary.get("trainable_parameters"), summary.get("all_parameters")
    if trainable and everything:
        share = f"{trainable / everything:.2%} of {format_number(everything)}"
        yield Fact("trained parameters", format_number(trainable), share)
    for kind in ("adapter", "model"):
        if summary.get(f"{kind}_bytes"):
            yield Fact(kind, format_bytes(summary[f"{kind}_bytes"]))
    if probe := summary.get("probe"):
        where = "of the GPU" if probe["memory"] == "device" else "of the process"
        yield Fact("probe", f"{format_bytes(probe['peak_bytes'])} {where}", f"at {probe['tokens']:,} tokens a step")
    if "optim" in summary and summary["optim"] != spec.get("optim"):
        yield Fact("optimizer", summary["optim"], f"instead of {spec['optim']}, which this device cannot run")
    if summary.get("quantization"):
        yield Fact("base weights", summary["quantization"])
    if "device" in summary:
        yield Fact("computed on", f"{summary['device']} in {summary['dtype']}")
