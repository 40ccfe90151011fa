"""Saving the adapter: whole or not at all, old checkpoints removed only once the new one is in place."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from app.core.jobs.spec import TrainingSpec
from worker.artifacts.folders import folder_bytes, publish_artifact
from worker.spool import SpoolWriter
from worker.training.adapters import write_adapter

_FILES_BYTES = 16 * 1024**2  # tokenizer, configuration and card beside the weights

_CARD = """---
library_name: peft
base_model: {base}
tags: [lora]
---

# LoRA adapter for {base}

Trained for {step} steps on the dataset "{dataset}" with Loradeck: r = {r}, alpha = {alpha}, learning rate {lr}.

`adapter_config.json` names the base model as it was registered. Load it from wherever you keep that model:

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

adapter = "path/to/this/folder"
tokenizer = AutoTokenizer.from_pretrained(adapter)
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("path/to/{base}"), adapter)
chat = [{{"role": "user", "content": "Hello"}}]
inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=100)[0], skip_special_tokens=True))
```

`meta.json` holds the exact settings, the package versions, and each file's size and SHA-256.
"""


@dataclass(frozen=True, slots=True)
class AdapterSaver:
    """Saves one job's adapter below its folder and announces it."""

    spool: SpoolWriter
    job_folder: Path
    tokenizer: Any
    spec: TrainingSpec
    base_model: dict[str, Any]  # name and architecture
    initial: dict[str, torch.Tensor] = field(default_factory=dict)  # what `initial_lora` returned

    def drop_earlier_attempts(self) -> None:
        """This attempt starts from step 0: checkpoints of one before it must not outlive its own."""
        shutil.rmtree(self.job_folder / "checkpoints", ignore_errors=True)

    def save_checkpoint(self, model: Any, step: int, best_step: int | None = None) -> None:
        """Save `checkpoints/step-N`, then drop the oldest beyond `save_total_limit`, but not the best.

        Raises: DiskFull.
        """
        checkpoints = self.job_folder / "checkpoints"
        checkpoints.mkdir(exist_ok=True, mode=0o700)
        self._write(model, checkpoints / f"step-{step}", step, "checkpoint")
        self._drop_old(checkpoints, best_step)
        self.spool.artifact("checkpoint", f"checkpoints/step-{step}", step=step)

    def save_adapter(self, model: Any, step: int) -> int:
        """Save `adapter`. Returns its bytes. Raises: DiskFull."""
        target = self.job_folder / "adapter"
        self._write(model, target, step, "adapter")
        self.spool.artifact("adapter", "adapter", step=step)
        return folder_bytes(target)

    def _write(self, model: Any, target: Path, step: int, kind: str) -> None:
        tensors = [p for p in model.parameters() if p.requires_grad] + list(self.initial.values())
        weights = sum(p.numel() * p.element_size() for p in tensors)
        meta = {"kind": kind, "base_model": self.base_model, "step": step, "spec": self.spec.model_dump(mode="json")}
        with publish_artifact(target, meta, weights + _FILES_BYTES) as folder:
            write_adapter(model, folder, self.initial)
            self.tokenizer.save_pretrained(folder)
            (folder / "README.md").write_text(self._card(step), encoding="utf-8")

    def _card(self, step: int) -> str:
        spec = self.spec
        return _CARD.format(
            base=self.base_model["name"],
            step=step,
            dataset=spec.dataset,
            r=spec.r,
            alpha=f"{spec.lora_alpha:g}",
            lr=f"{spec.learning_rate:g}",
        )

    def _drop_old(self, checkpoints: Path, best_step: int | None) -> None:
        folders = sorted(checkpoints.glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))
        for folder in folders[: -self.spec.save_total_limit]:
            if folder.name == f"step-{best_step}":
                continue
            condemned = folder.with_name(f".{folder.name}.removed")  # half a checkpoint must not look like one
            folder.rename(condemned)
            shutil.rmtree(condemned)
