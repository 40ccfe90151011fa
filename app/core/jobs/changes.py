"""Changes to a spec that may take less memory, in the order of what they change of what is learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from app.core.jobs.capabilities import effective_optim
from app.core.jobs.spec import TrainingSpec, own_defaults

_SHORTEST = 64  # tokens; rows cut below that hold no conversation
_FEW = 0.01  # share of rows that may be cut before the cut counts for more than quantised weights
_LOWEST_RANK = 8


@dataclass(frozen=True, slots=True)
class Rows:
    """What is known of the rows: how many, the tokens of the longest, and [[tokens, how many are longer], …]."""

    count: int | None = None
    longest: int | None = None
    longer_than: tuple[tuple[int, int], ...] = ()

    def cut_by(self, max_length: int) -> int | None:
        """How many rows are longer than that."""
        return next((count for limit, count in self.longer_than if limit == max_length), None)


@dataclass(frozen=True, slots=True)
class Change:
    """One change: the fields that it sets, what it costs, and the peak that it is predicted to have."""

    key: str  # for a request to name it
    title: str
    effect: str
    values: Mapping[str, Any]
    peak_bytes: int | None = None
    fits: bool | None = None  # None where the peak or the memory is not known, or it would be tight


@dataclass(frozen=True, slots=True)
class Setting:
    """What a change depends on beside the spec."""

    on_cuda: bool
    capabilities: Mapping[str, Any] | None
    rows: Rows
    capacity_bytes: int | None  # what a job may take


def list_changes(spec: TrainingSpec, setting: Setting) -> Iterator[Change]:
    """Each that makes sense for the spec, not yet weighed, the one with the least effect first."""
    few, many = _shorter_rows(spec, setting.rows)
    yield from _checkpointing(spec, setting)
    yield from _batches(spec)
    yield from _optimizer(spec, setting)
    yield from few
    yield from _smaller_weights(spec)
    yield from _lower_rank(spec)
    yield from many


def _checkpointing(spec: TrainingSpec, setting: Setting) -> Iterator[Change]:
    on = setting.on_cuda if spec.gradient_checkpointing == "auto" else spec.gradient_checkpointing
    effect = "The result stays the same; a step takes about a third longer."
    if not on:
        yield Change("checkpointing", "Gradient checkpointing", effect, {"gradient_checkpointing": True})


def _batches(spec: TrainingSpec) -> Iterator[Change]:
    """Half the batch, and single rows; the effective batch is kept exactly."""
    batch, effective = spec.per_device_train_batch_size, _effective(spec)
    halves = [size for size in range(2, batch // 2 + 1) if effective % size == 0][-1:]
    for size in (*halves, *([1] if batch > 1 else [])):
        values = {"per_device_train_batch_size": size, "gradient_accumulation_steps": effective // size}
        title = f"Batch {size}, accumulation {effective // size}"
        yield Change(f"batch-{size}", title, "The effective batch and the result stay the same; it is slower.", values)


def _effective(spec: TrainingSpec) -> int:
    return spec.per_device_train_batch_size * spec.gradient_accumulation_steps


def _optimizer(spec: TrainingSpec, setting: Setting) -> Iterator[Change]:
    optim = effective_optim(spec.optim, on_cuda=setting.on_cuda)
    lean = "paged_adamw_8bit" if setting.on_cuda and (setting.capabilities or {}).get("paged") else "adamw_8bit"
    if optim not in (lean, "paged_adamw_8bit"):
        effect = "AdamW's state is held in 8 bits: the result hardly differs."
        yield Change(lean, f"Optimizer {lean}", effect, {"optim": lean})


def _shorter_rows(spec: TrainingSpec, rows: Rows) -> tuple[list[Change], list[Change]]:
    """Those that cut a few rows alone, and those that cut more or nobody knows how many."""
    few: list[Change] = []
    many: list[Change] = []
    for length in (spec.max_length // 2, spec.max_length // 4):
        if length < _SHORTEST or (rows.longest is not None and rows.longest <= length):
            continue
        cut = rows.cut_by(length)
        effect = f"{_FATES[spec.overlong_rows]} {_how_many(cut, rows.count)}."
        change = Change(f"max_length-{length}", f"Max length {length:,}", effect, {"max_length": length})
        is_few = cut is not None and rows.count is not None and cut <= _FEW * rows.count
        (few if is_few else many).append(change)
    return few, many


_FATES = {"truncate": "Cuts", "drop": "Leaves out", "split": "Splits"}


def _how_many(cut: int | None, count: int | None) -> str:
    return "rows that are longer" if cut is None or count is None else f"{cut:,} of {count:,} rows"


def _smaller_weights(spec: TrainingSpec) -> Iterator[Change]:
    in_4_bits = "The frozen weights are held in 4 bits: a little is lost, and it is slower."
    if spec.method == "lora":
        yield Change("qlora", "QLoRA", in_4_bits, {"method": "qlora"})
    if spec.method == "full":
        adapter = "An adapter is trained instead of every weight, at its own learning rate."
        usual = TrainingSpec.model_fields["learning_rate"].default
        for method, title, effect in (("lora", "LoRA", adapter), ("qlora", "QLoRA", f"{adapter} {in_4_bits}")):
            rate = own_defaults(method, spec.task).get("learning_rate", usual)
            yield Change(method, title, effect, {"method": method, "learning_rate": rate})


def _lower_rank(spec: TrainingSpec) -> Iterator[Change]:
    """Alpha goes with the rank, so that the update keeps its scale."""
    rank = spec.r // 2
    if spec.method == "full" or rank < _LOWEST_RANK:
        return
    alpha = round(spec.lora_alpha * (rank / spec.r) ** (0.5 if spec.use_rslora else 1), 4)
    effect = "The adapter has fewer parameters to learn with."
    yield Change(f"rank-{rank}", f"Rank {rank}, alpha {alpha:g}", effect, {"r": rank, "lora_alpha": alpha})
