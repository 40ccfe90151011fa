"""transformers' Trainer with our loss, our order of rows, and none of its saving, reporting or printing."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from typing_extensions import override

from app.core.jobs.capabilities import effective_optim
from app.core.jobs.spec import TrainingSpec
from worker.training.attention import attention_per_row
from worker.training.batches import Collator, FlatCollator, LengthGroupedSampler
from worker.training.data import EncodedRow
from worker.training.encoded import lengths_of
from worker.training.losses import answer_loss, choose_scoring, mean_loss
from worker.training.model import Hardware
from worker.training.packing import Pack, PackCollator, Packs
from worker.training.pairs import EncodedPair, Pairs
from worker.training.resume import load_trainable

logger = logging.getLogger(__name__)

Values = dict[str, float]  # by the name of their series
Drawn = Sequence[EncodedRow] | Pairs | Packs  # what the Trainer draws from


class Rows(Dataset[EncodedRow | EncodedPair | Pack]):
    """Encoded rows, pairs or packs of them, as a torch dataset."""

    def __init__(self, rows: Drawn) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> EncodedRow | EncodedPair | Pack:
        return self.rows[index]


class AnswerTrainer(Trainer):
    """Learns the labelled tokens; counts the tokens it has read, padding left out, in `tokens_seen`."""

    loss_is_scaled_for_ga = True  # by the labelled tokens of the whole accumulated batch, so accumulation is exact

    def __init__(
        self,
        model: Any,
        arguments: TrainingArguments,
        rows: Drawn,
        collate: Collator | FlatCollator,
        callback: TrainerCallback,
    ) -> None:
        packed = isinstance(rows, Packs)
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=Rows(rows),
            data_collator=PackCollator() if packed else collate,
            callbacks=[callback],
        )
        self.remove_callback(PrinterCallback)
        self.model_accepts_loss_kwargs = True  # makes the Trainer count the labelled tokens that the loss is divided by
        self.collate: Callable[[Any], dict[str, Any]] = collate
        self._flat = isinstance(collate, FlatCollator)
        self.scoring = choose_scoring(model)
        self.tokens_seen = 0
        self.note_batch: Callable[[int, dict[str, Any]], None] | None = None  # told the step and each of its batches
        self.row_lengths = rows.lengths if isinstance(rows, Packs) else lengths_of(rows)

    @override
    def train(self, *arguments: Any, **keywords: Any) -> Any:
        """As transformers' own; flattened batches, evaluation's too, are attended to row by row."""
        with self.attending():
            return super().train(*arguments, **keywords)

    def attending(self) -> AbstractContextManager[None]:
        """What the model needs around its work on this trainer's batches."""
        return attention_per_row(self.model) if self._flat else nullcontext()

    def measure(self, batches: Iterable[dict[str, Any]]) -> Values:
        """What an eval over all batches comes to, `eval_loss` among it."""
        with self.accelerator.autocast():
            return {"eval_loss": mean_loss(self.model, batches, self.scoring)}

    def take_metrics(self) -> Values:
        """What the steps since the last time came to beside their loss."""
        return {}

    @override
    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        per_step = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return LengthGroupedSampler(self.row_lengths, per_step, self.args.seed)

    @override
    def training_step(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """As transformers' own; the batch is noted before memory may run out."""
        if self.note_batch is not None:
            self.note_batch(self.state.global_step + 1, inputs)
        return super().training_step(model, inputs, num_items_in_batch)

    @override
    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """As transformers' own without its first step where that is one of a warm-up: its learning rate is 0.

        A warm-up of n steps goes from 1/n to the whole learning rate in its last one; the rest falls as before.
        """
        warm_up = self.args.get_warmup_steps(num_training_steps)
        if warm_up == 0:
            return super().create_scheduler(num_training_steps, optimizer)
        self.args.warmup_steps = warm_up
        scheduler = super().create_scheduler(num_training_steps + 1, optimizer)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")  # before the optimizer's: as meant
            scheduler.step()
        return scheduler

    @override
    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """The trainable tensors alone; optimizer, scheduler and random states are loaded by the Trainer itself."""
        load_trainable(self.model, Path(resume_from_checkpoint))

    @override
    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """The micro-batch's summed loss over the labelled tokens of the whole step."""
        self.tokens_seen += inputs["tokens"]
        with self.accelerator.autocast():  # the head as well as the layers, where weights are wider than the arithmetic
            loss = answer_loss(model, inputs, self.scoring)
        return torch.div(loss, num_items_in_batch)

    @override
    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: walking all parameters in each step costs time."""
        return 0


def choose_optim(spec: TrainingSpec, hardware: Hardware) -> str:
    """The optimizer that the run uses: paged ones need CUDA, elsewhere the same without paging takes their place."""
    return effective_optim(spec.optim, on_cuda=hardware.device.type == "cuda")


def make_arguments(spec: TrainingSpec, hardware: Hardware, folder: Path) -> TrainingArguments:
    """The Trainer's arguments from a spec. Nothing is saved, reported or sent anywhere by the Trainer itself."""
    on_cuda = hardware.device.type == "cuda"
    checkpointing = on_cuda if spec.gradient_checkpointing == "auto" else spec.gradient_checkpointing
    optim = choose_optim(spec, hardware)
    if optim != spec.optim:
        logger.warning("%s pages its state between GPU and host; without CUDA %s is used", spec.optim, optim)
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=spec.per_device_train_batch_size,
        gradient_accumulation_steps=spec.gradient_accumulation_steps,
        num_train_epochs=spec.num_train_epochs,
        max_steps=spec.max_steps or -1,
        learning_rate=spec.learning_rate,
        lr_scheduler_type=spec.lr_scheduler_type,
        warmup_steps=spec.warmup_ratio,  # a share below 1 is a share of the steps
        weight_decay=spec.weight_decay,
        max_grad_norm=spec.max_grad_norm,
        optim=optim,
        bf16=hardware.dtype == torch.bfloat16,
        activation_checkpointing=bool(checkpointing),
        activation_checkpointing_kwargs={"use_reentrant": False} if checkpointing else None,
        seed=spec.seed,
        logging_steps=spec.logging_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,  # the callback stops at a loss that is not finite
        use_cpu=not on_cuda,
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=on_cuda,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # several visible GPUs would otherwise mean DataParallel
    return arguments
