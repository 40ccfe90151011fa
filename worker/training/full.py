"""Training every weight: how the model is loaded, and how it is saved whole, in the base's type where that keeps all.

Weights, gradients and both AdamW moments are fp32: 16 bytes for each parameter. Where the device computes in bfloat16,
so do the layers (autocast), from rounded copies of the fp32 weights: an update of 2e-5 is smaller than half the spacing
of bfloat16 around most weights, so weights that are themselves bfloat16 would stay where they are.
Source: Mixed Precision Training (Micikevicius et al., 2018), section 3.1.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel

from app.core.errors import JobError
from app.core.jobs.spec import TrainingSpec
from worker.artifacts.answers import Reference, compare, measure_reference
from worker.artifacts.disk import check_free_space
from worker.artifacts.saving import save_model
from worker.artifacts.verify import (
    Subject,
    certify,
    describe_certificate,
    dtype_name,
    measure_again,
    rounding_warning,
)
from worker.base_models.checks import check_weights
from worker.context import JobContext
from worker.training.callback import check_cancelled
from worker.training.model import Hardware
from worker.training.outputs import Certificate, Writing
from worker.training.preload import base_model_of

logger = logging.getLogger(__name__)

_TYPES = {"BF16": torch.bfloat16, "F16": torch.float16}  # as safetensors spells them; all else is saved in fp32
_TRAINED = Subject(
    saved="The saved model",
    origin="the trained model in memory",
    change="training itself",
    effect_name="training_effect",
    error=JobError,
    advice="Its checkpoints are unharmed and can be downloaded; they hold the weights in fp32.",
    remedy="It is saved in float32 instead.",
)
_CARD = """---
library_name: transformers
base_model: {base}
---

# {base}, trained on {dataset}

Every weight was trained, for {step} steps on the dataset "{dataset}" with Loradeck: learning rate {lr}.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "path/to/this/folder"
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
chat = [{{"role": "user", "content": "Hello"}}]
inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=100)[0], skip_special_tokens=True))
```

`meta.json` holds the exact settings, the package versions, and each file's size and SHA-256.
"""


def load_whole_model(path: str | Path, hardware: Hardware) -> Any:
    """The base model with every weight trainable, in fp32 whatever the hardware computes in. Raises: ModelLoadError."""
    return base_model_of(path, replace(hardware, dtype=torch.float32))


class ModelOutput:
    """A whole model, as a folder that any program loads. Made before training: it lets the base read a few prompts.

    Raises: DiskFull where the trained model would not fit beside what is on the disk now.
    """

    kind = "model"

    def __init__(self, context: JobContext, model: Any, tokenizer: Any, spec: TrainingSpec) -> None:
        base = context.payload["base_model"]
        self._context, self._tokenizer, self._spec, self._base_name = context, tokenizer, spec, base["name"]
        self._base_dtype = _TYPES.get(check_weights(Path(base["path"])).dtype, torch.float32)
        check_free_space(context.folder / self.kind, _weights_bytes(model, self._base_dtype))
        self._base = measure_reference(model.eval(), tokenizer, new_tokens=0)
        self._use_cache = model.config.use_cache  # gradient checkpointing switches it off while it trains

    def checkpoint(self, model: Any) -> Writing:
        """The fp32 weights: a checkpoint loses nothing."""
        return Writing(_weights_bytes(model, torch.float32), partial(self._save, model, torch.float32))

    def final(self, model: Any) -> Writing:
        """The weights in the type of the base's files, unless rounding to it would take a large part of the training.

        What is large is measured: the logits of a few prompts move by so much through the training, and by so much
        through rounding. A short run at a low rate changes many weights by less than bfloat16 can tell; then fp32 is
        written, twice as large. Frees the gradients. Raises: JobCancelled.
        """
        model.zero_grad(set_to_none=True)
        plain = extract_model_from_parallel(model, keep_fp32_wrapper=False).eval()  # no autocast from here on
        effect = compare(self._base, measure_again(self._base, plain)).relative_difference
        reference = measure_reference(plain, self._tokenizer)
        check_cancelled(self._context)
        dtype, rounded = self._choose_dtype(plain, reference, effect)
        write = partial(self._write, plain, reference, rounded, dtype, effect)
        return Writing(_weights_bytes(plain, dtype), write)

    def _choose_dtype(self, model: Any, reference: Reference, effect: float) -> tuple[torch.dtype, Reference]:
        """The type to save in, and what the weights rounded to it answer."""
        dtype = self._base_dtype
        if dtype == torch.float32:
            return dtype, reference
        with _weights_kept(model):
            for parameter in model.parameters():
                parameter.data = parameter.data.to(dtype).float()
            rounded = measure_again(reference, model)
        warning = rounding_warning(compare(reference, rounded).relative_difference, effect, dtype, _TRAINED)
        if warning is None:
            return dtype, rounded
        logger.warning("%s", warning)
        return torch.float32, reference

    def _write(
        self, model: Any, reference: Reference, rounded: Reference, dtype: torch.dtype, effect: float, folder: Path
    ) -> Certificate:
        """Save and verify. Raises: JobError where what is on disk is not what was trained; JobCancelled."""
        self._save(model, dtype, folder)
        check_cancelled(self._context)
        self._context.spool.phase("verify")
        certificate = certify(reference, rounded, folder, dtype, effect, _TRAINED)
        certificate["base_dtype"] = dtype_name(self._base_dtype)
        logger.info("%s", describe_certificate(certificate, _TRAINED))
        check_cancelled(self._context)
        return certificate

    def _save(self, model: Any, dtype: torch.dtype, folder: Path) -> None:
        """Write the model as it should be used; it goes on as it trains."""
        in_training, model.config.use_cache = model.config.use_cache, self._use_cache
        try:
            with _weights_kept(model):
                save_model(model, self._tokenizer, folder, dtype)
        finally:
            model.config.use_cache = in_training

    def card(self, step: int) -> str:
        """What it is, and how to load it with transformers."""
        spec = self._spec
        return _CARD.format(base=self._base_name, step=step, dataset=spec.dataset, lr=f"{spec.learning_rate:g}")


@contextmanager
def _weights_kept(model: Any) -> Iterator[None]:
    """Parameters whose data is replaced inside the block get back what they held before it; tied ones stay tied."""
    kept = [(parameter, parameter.data) for parameter in model.parameters()]
    try:
        yield
    finally:
        for parameter, weight in kept:
            parameter.data = weight


def _weights_bytes(model: Any, dtype: torch.dtype) -> int:
    """Bytes of all weights in `dtype`; tied ones count once."""
    return sum(int(p.numel()) for p in model.parameters()) * dtype.itemsize
