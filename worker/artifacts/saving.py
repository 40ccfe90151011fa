"""What lies beside the weights of a model that is saved: configuration, tokenizer, template, licence, card."""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import torch

from worker.inference.prompts import stop_token_ids
from worker.own_code import may_run_code

logger = logging.getLogger(__name__)

_CARRIED = ("LICENSE*", "LICENCE*", "COPYING*", "NOTICE*", "USE_POLICY*", "tokenizer.model")
_TOKENIZER_CONFIG = "tokenizer_config.json"
_HEAD = re.compile(r"\A---\n(.*?)^---$", re.DOTALL | re.MULTILINE)  # of a card: what the hub reads
_LICENCE = re.compile(r"^license(?:_name|_link)?: .+$", re.MULTILINE)
_CARD = """---
library_name: transformers
base_model: {base}
base_model_relation: finetune
{licence}---

# {base}, fine-tuned

Merged with Loradeck: a LoRA adapter{step} was added to {onto} in fp32, {how}, and rounded once to {dtype}.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "path/to/this/folder"
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
chat = [{{"role": "user", "content": "Hello"}}]
inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=100)[0], skip_special_tokens=True))
```

`meta.json` holds the certificate, which compares this folder with base and adapter, the package versions, and each
file's size and SHA-256.
"""


def save_model(model: Any, tokenizer: Any, folder: Path, dtype: torch.dtype) -> None:
    """Write the rounded weights in `dtype`, with tokenizer, chat template and generation config."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)  # in place, so that tied weights stay tied
    model.config.dtype = dtype
    mend_generation_config(model.generation_config, stop_token_ids(model, tokenizer))
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)


def save_configuration(model: Any, folder: Path, dtype: torch.dtype, *, words: int, untied: bool) -> None:
    """As `save_pretrained` would, of a model whose weights are elsewhere; `words` is the size of its vocabulary."""
    for config in {id(each): each for each in (model.config, model.config.get_text_config())}.values():
        config.dtype = dtype
        if hasattr(config, "vocab_size"):
            config.vocab_size = words
        if untied:
            config.tie_word_embeddings = False
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Its chat template stands in a file of its own, and for older readers in its configuration too."""
    tokenizer.save_pretrained(folder)
    path = folder / _TOKENIZER_CONFIG
    if isinstance(tokenizer.chat_template, str) and path.is_file():
        config = json.loads(path.read_text(encoding="utf-8"))
        config["chat_template"] = tokenizer.chat_template
        path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def carry_over(base: Path, folder: Path) -> None:
    """Copy the base's licence, what its tokenizer was made from, and code that it needs, where they are not there."""
    patterns = (*_CARRIED, "*.py") if may_run_code(base) else _CARRIED
    for file in sorted({path for pattern in patterns for path in base.glob(pattern) if path.is_file()}):
        if not (folder / file.name).exists():
            shutil.copyfile(file, folder / file.name)


def write_card(folder: Path, base_folder: Path, *, base: str, step: str, onto: str, how: str, dtype: str) -> None:
    """The model card, with the licence that the base model's card names."""
    readme = base_folder / "README.md"
    head = _HEAD.match(readme.read_text(encoding="utf-8", errors="replace")) if readme.is_file() else None
    licence = "".join(f"{line}\n" for line in _LICENCE.findall(head[1])) if head else ""
    card = _CARD.format(base=base, licence=licence, step=step, onto=onto, how=how, dtype=dtype)
    (folder / "README.md").write_text(card, encoding="utf-8")


def mend_generation_config(config: Any, stop_ids: list[int]) -> None:
    """Make it end where the tuned model ends its turn, and valid: transformers refuses to save it otherwise.

    Settings of sampling without `do_sample` are the usual fault; whoever set them wanted to sample.
    """
    config.eos_token_id = stop_ids[0] if len(stop_ids) == 1 else stop_ids
    config._from_model_config = False
    try:
        config.validate(strict=True)
    except ValueError as error:
        logger.info("generation_config: do_sample switched on, since %s", error)
        config.do_sample = True
