"""One run: the trainer and all that stands beside it, from what an earlier attempt left to what is saved last."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from app.core.jobs.spec import TrainingSpec
from worker.artifacts.steps import CHECKPOINTS
from worker.context import JobContext, StopRequest
from worker.patience import save_when_it_fits
from worker.training.adapters import base_stays, initial_lora
from worker.training.callback import SpoolCallback, check_cancelled
from worker.training.checkpoints import Saver
from worker.training.duties import Duties
from worker.training.encoded import Whole
from worker.training.full import ModelOutput
from worker.training.memory_marks import MemoryMarks
from worker.training.model import Hardware
from worker.training.origin import describe_origin
from worker.training.outputs import AdapterOutput, Output
from worker.training.packing import Packs, arrange_rows
from worker.training.pairs import Pairs
from worker.training.preference import PreferenceTrainer
from worker.training.probing import Probe
from worker.training.resume import Found, StateStore, describe_beginning, take_end
from worker.training.rows import EncodedRows, Examples
from worker.training.samples import Prompt, choose_prompts, write_samples
from worker.training.summary import summarise
from worker.training.trainer import AnswerTrainer, Values, make_arguments


class Run:
    """Made of a loaded model and encoded rows; `train()` does the rest. Raises: InvalidInput."""

    def __init__(
        self,
        context: JobContext,
        spec: TrainingSpec,
        hardware: Hardware,
        model: Any,
        tokenizer: Any,
        rows: EncodedRows,
    ) -> None:
        self._context, self._spec, self._hardware = context, spec, hardware
        self._model, self._tokenizer, self._rows = model, tokenizer, rows
        self._base_shown = bool((context.payload.get("sampled") or {}).get("base"))
        self._marks = MemoryMarks(model, hardware)
        self._saver = self._make_saver()
        self._callback = SpoolCallback(context, spec)
        self._trainer = self._make_trainer()
        origin = describe_origin(context.payload, self._trainer.row_lengths, initial_lora(model, spec))
        self._states = StateStore(context.folder, origin, hardware.device.type)
        self._probe = Probe(self._trainer)
        self._callback.duties = self._make_duties()

    def train(self) -> dict[str, Any]:
        """Train from where an earlier attempt stopped, save, show samples; returns the summary."""
        self._trainer.note_batch = self._context.in_hand.take
        self._context.in_hand.describe_rows(self._longest_rows.tolist(), self._spec.max_length)
        begun = self._go_on()
        memory: dict[str, Any] = {}
        if begun.state and begun.state.ended:
            take_end(self._trainer, begun.state)
        else:
            self._look_at_start(begun)
            self._trainer.train(resume_from_checkpoint=str(begun.state.folder) if begun.state else None)
            base, longest = self._context.payload["base_model"]["path"], int(self._longest_rows.max())
            memory = self._marks.summary(base, self._spec, longest)
            self._context.spool.phase("save")
            self._context.spool.sync()
            self._states.keep_end(self._trainer, self._callback.progress, self._callback.best)
        return self._finish(begun, memory)

    def _make_saver(self) -> Saver:
        context, spec, model, base = self._context, self._spec, self._model, self._context.payload["base_model"]
        known = {name: base.get(name) for name in ("name", "architecture")} | {"dtype": self._hardware.dtype_name}
        output: Output = AdapterOutput(model, spec, base.get("hub_id") or base["name"], base.get("hub_id") is not None)
        if spec.method == "full":
            output = ModelOutput(context, model, self._tokenizer, spec)
        return Saver(context, self._tokenizer, spec, known, output)

    def _make_trainer(self) -> AnswerTrainer:
        pad = self._tokenizer.pad_token_id or 0  # any id will do: padding is neither seen nor learned
        with self._hardware.autocast():  # as it trains, so that what is proven is what is used
            self._examples, collate = arrange_rows(self._model, self._rows.train, self._spec, pad)
        arguments = make_arguments(self._spec, self._hardware, self._context.folder)
        given: tuple[Any, ...] = (self._model, arguments, self._examples, collate, self._callback)
        return PreferenceTrainer(self._spec.beta, *given) if self._spec.task == "dpo" else AnswerTrainer(*given)

    def _make_duties(self) -> Duties:
        return Duties(
            tokens_seen=lambda: self._trainer.tokens_seen,
            save_checkpoint=self._save,
            save_state=self._save_state,
            evaluate=self._evaluate if self._rows.evaluation else None,
            take_metrics=self._trainer.take_metrics,
            show_samples=self._sample if self._has_samples else None,
            probe=self._probe.take if self._spec.probe else None,
        )

    def _go_on(self) -> Found:
        """Where an earlier attempt was interrupted: the state to go on from, taken up here and by the Trainer."""
        begun = self._states.find(self._context.payload.get("start_from"))
        self._saver.drop_later_checkpoints(begun.step)
        self._states.drop_later(begun.step)
        self._context.spool.start(begun.step)
        if self._context.assignment.attempt > 1:
            self._context.spool.summary(describe_beginning(begun))
        if begun.state:
            self._callback.lacks_samples = self._lacks_samples(begun)
            self._callback.resume(begun.state.progress, ended=begun.state.ended)
            self._trainer.tokens_seen = self._callback.totals.tokens
        return begun

    def _look_at_start(self, begun: Found) -> None:
        """What training changes for good is looked at before it: the base's answers, and the reference of pairs."""
        if base_stays(self._spec):
            return
        if not begun.state and self._has_samples:
            self._context.spool.phase("sample")
            self._write_samples(0, ["base"])
        if isinstance(self._trainer, PreferenceTrainer):
            self._context.spool.phase("reference")
            batches = chain(self._batches(self._rows.train), self._batches(self._rows.evaluation))
            self._trainer.keep_start(batches, len(self._rows.train) + len(self._rows.evaluation))

    def _finish(self, begun: Found, memory: dict[str, Any]) -> dict[str, Any]:
        state, best = self._trainer.state, self._callback.best
        step = self._states.take_best(self._model, best, state.global_step)
        self._context.spool.phase("save")
        saved = self._saver.save_final(self._model, step, state.global_step)
        hurry = self._context.stop_request is StopRequest.SAVE
        if not hurry and self._has_samples:
            self._context.spool.phase("sample")
            self._sample(step)
        extra = {
            "steps": state.global_step,
            "saved_step": step,
            "stopped_by_user": hurry and state.global_step < state.max_steps and not best.stopped,
            **describe_beginning(begun),
            "attempts": self._context.assignment.attempt,
            **saved,
            **best.summary(),
            **self._probe.summary(),
            **memory,
            **(self._examples.summary() if isinstance(self._examples, Packs) else {}),
        }
        return summarise(self._callback, self._model, self._rows, self._hardware, extra)

    def _save(self, step: int, best_step: int | None) -> None:
        """A checkpoint, and only then the state: a run that goes on from there lacks none of the checkpoints before."""
        self._saver.save_checkpoint(self._model, step, best_step)
        self._save_state(best_step)

    def _save_state(self, best_step: int | None) -> None:
        self._context.spool.sync()  # what was reported up to here must outlive a power cut as the state does
        progress = self._callback.progress
        save_when_it_fits(self._context, lambda: self._states.save(self._trainer, progress, best_step))

    def _evaluate(self, base: bool) -> Values:
        """What the eval rows come to, of the base model (the adapter switched off) or as trained so far."""
        with self._model.disable_adapter() if base else nullcontext():
            return self._trainer.measure(self._batches(self._rows.evaluation, heed_pause=False))

    def _batches(self, rows: Examples, *, heed_pause: bool = True) -> Iterator[dict[str, Any]]:
        """All rows, those of like length together. An eval is brought to its end before a pause, which saves it."""
        ordered, batch_size = rows.by_length(), self._trainer.args.per_device_train_batch_size
        for start in range(0, len(ordered), batch_size):
            check_cancelled(self._context, heed_pause=heed_pause)
            batch = self._trainer.collate(ordered[start : start + batch_size])
            self._context.in_hand.take(self._trainer.state.global_step, batch)
            yield batch

    @property
    def _has_samples(self) -> bool:
        """Known without a look at the rows."""
        return bool(self._spec.sample_max_new_tokens and (self._spec.sample_prompts or self._rows.held_out))

    def _sample(self, step: int) -> None:
        """What the model answers now; with the first time what its base does, where that is still there."""
        who = ["tuned"] if self._base_shown or not base_stays(self._spec) else ["base", "tuned"]
        self._write_samples(step, who)
        self._base_shown = True

    def _write_samples(self, step: int, who: list[str]) -> None:
        most = self._spec.sample_max_new_tokens
        write_samples(self._context, self._model, self._tokenizer, self._prompts, step, who, most)

    def _lacks_samples(self, begun: Found) -> bool:
        """Whether an attempt before this one saved the checkpoint of the step and was ended before it told of it."""
        told = (self._context.payload.get("sampled") or {}).get("steps", ())
        has_checkpoint = (self._context.folder / CHECKPOINTS / f"step-{begun.step}").is_dir()
        return bool(begun.state and not begun.state.ended) and has_checkpoint and begun.step not in told

    @cached_property
    def _longest_rows(self) -> Whole:
        """Tokens of each row, or of the longer sequence of each pair."""
        rows = self._rows.train
        return rows.longer_sides if isinstance(rows, Pairs) else rows.lengths

    @cached_property
    def _prompts(self) -> list[Prompt]:
        path = Path(self._context.payload["dataset"]["path"])
        return choose_prompts(path, self._rows.held_out, self._tokenizer, self._spec)
