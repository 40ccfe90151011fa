"""What a run leaves behind: how its weights are written, and the card beside them. Here for LoRA."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from app.core.jobs.spec import TrainingSpec
from worker.training.adapters import initial_lora, write_adapter
from worker.training.quantization import find_quantization

Certificate = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Writing:
    """Weights that are ready to be written, and how; `write` returns a certificate where it verifies what it wrote."""

    weights_bytes: int
    write: Callable[[Path], Certificate | None]


class Output(Protocol):
    """What a training method saves. `kind` is that of the final artifact, and the name of its folder."""

    kind: str

    def checkpoint(self, model: Any) -> Writing:
        """The weights as they are now, so that training could go on from them."""

    def final(self, model: Any) -> Writing:
        """The weights once training has ended."""

    def card(self, step: int) -> str:
        """The README of a folder saved at that step."""


_ADAPTER_CARD = """---
library_name: peft
base_model: {base}
tags: [lora]
---

# LoRA adapter for {base}

Trained for {step} steps on the dataset "{dataset}" with Loradeck: r = {r}, alpha = {alpha}, learning rate {lr}.

{found} Load it:

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer{more}

adapter = "path/to/this/folder"
tokenizer = AutoTokenizer.from_pretrained(adapter)
base = AutoModelForCausalLM.from_pretrained("{place}"{how})
model = PeftModel.from_pretrained(base, adapter)
chat = [{{"role": "user", "content": "Hello"}}]
inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=100)[0], skip_special_tokens=True))
```

`meta.json` holds the exact settings, the package versions, and each file's size and SHA-256.
"""

_ON_HUB = "`adapter_config.json` names the base model by its hub id and commit, so `AutoPeftModelForCausalLM` finds it."
_NAMED_HERE = (
    "`adapter_config.json` names the base model as it was registered, which no program finds by itself: give the place "
    "where you keep that model."
)


@dataclass(slots=True)
class AdapterOutput:
    """An adapter beside the base model, the same way in a checkpoint and at the end. Made before training starts."""

    model: InitVar[Any]
    spec: TrainingSpec
    base_name: str
    on_hub: bool = False  # the name is a hub id
    kind: str = "adapter"
    _initial: dict[str, torch.Tensor] = field(init=False)

    def __post_init__(self, model: Any) -> None:
        self._initial = initial_lora(model, self.spec)

    def checkpoint(self, model: Any) -> Writing:
        """Adapter weights that fit the base model as it lies on disk."""
        tensors = [p for p in model.parameters() if p.requires_grad] + list(self._initial.values())
        return Writing(sum(p.numel() * p.element_size() for p in tensors), lambda folder: self._write(model, folder))

    final = checkpoint

    def _write(self, model: Any, folder: Path) -> None:
        write_adapter(model, folder, self._initial)

    def card(self, step: int) -> str:
        """What it is, and how to load it with peft."""
        spec, quantization = self.spec, find_quantization(self.spec.model_dump())
        return _ADAPTER_CARD.format(
            base=self.base_name,
            found=_ON_HUB if self.on_hub else _NAMED_HERE,
            place=self.base_name if self.on_hub else f"path/to/{self.base_name}",
            more=", BitsAndBytesConfig" if quantization else "",
            how=f", quantization_config={quantization.to_source()}" if quantization else "",
            step=step,
            dataset=spec.dataset,
            r=spec.r,
            alpha=f"{spec.lora_alpha:g}",
            lr=f"{spec.learning_rate:g}",
        )
