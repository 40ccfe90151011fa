"""What training files of several programs share, since all of them lead to transformers' trainer."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from app.core.jobs.recipes.recipe import Draft

OPTIMIZERS = {
    "adamw_torch": "adamw_torch",
    "adamw_torch_fused": "adamw_torch_fused",
    "adamw_hf": "adamw_torch",  # the same algorithm; transformers has removed its own
    "adamw_bnb_8bit": "adamw_8bit",  # bitsandbytes' name and transformers' for one optimizer
    "adamw_8bit": "adamw_8bit",
    "paged_adamw": "paged_adamw_32bit",
    "paged_adamw_32bit": "paged_adamw_32bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
}
SCHEDULES = {name: name for name in ("cosine", "linear", "constant", "constant_with_warmup")}
OPTIMIZER_ADVICE = f"Optimizers here: {', '.join(dict.fromkeys(OPTIMIZERS.values()))}."
SCHEDULE_ADVICE = f"Schedules here: {', '.join(SCHEDULES)}."
ONE_DATASET = "A job learns from one dataset: join the rows in one file, upload it, and choose it."
_SHARE_OF_WHOLE = 0.5  # the most that may be held out; `eval_max_rows` then says how many rows


def take_held_out(draft: Draft, key: str) -> None:
    """A share of the rows, or (from 1 up) a number of them."""
    value = draft.take(key)
    size = number(value)
    if value is None:
        draft.assume("eval_fraction", 0.0, f"{key} is not given, and its default holds nothing out")
    elif size is None or size < 1:
        draft.put(key, value, "eval_fraction", value)
    else:
        draft.put(key, value, "eval_fraction", _SHARE_OF_WHOLE, "the number of rows is the limit")
        draft.recipe.values["eval_max_rows"] = int(size)


def take_warmup(draft: Draft, default: float, why: str) -> None:
    """`warmup_ratio`, else `warmup_steps` where the number of steps is given too."""
    ratio, steps, most = draft.take("warmup_ratio"), draft.take("warmup_steps"), number(draft.look("max_steps"))
    share = number(steps)
    if ratio is not None:
        draft.put("warmup_ratio", ratio, "warmup_ratio", ratio)
    if steps is None or ratio is not None:
        if steps:
            draft.leave("warmup_steps", steps, "warmup_ratio is given, and goes before it")
    elif share is not None and share < 1:
        draft.put("warmup_steps", steps, "warmup_ratio", steps, "below 1 it is a share")
    elif share is not None and most and most > 0:
        draft.put("warmup_steps", steps, "warmup_ratio", round(share / most, 4), f"{steps} of {most:g} steps")
    else:
        draft.leave("warmup_steps", steps, "the warm-up is a share of the steps here (warmup_ratio); how many steps "
                    "there are is known once the dataset is chosen")  # fmt: skip
    draft.assume("warmup_ratio", default, why)


def take_interval(draft: Draft, key: str, default: int | None = None) -> None:
    """`eval_steps` or `save_steps`: a number of steps, or below 1 a share of them."""
    value, most = draft.take(key), number(draft.look("max_steps"))
    share = number(value)
    if value is None:
        if default is not None:
            draft.assume(key, default, f"{key} is not given; this is its default")
    elif share is None or share >= 1:
        draft.put(key, value, key, value)
    elif most and most > 0:
        draft.put(key, value, key, max(1, round(share * most)), "a share of max_steps")
    else:
        draft.leave(key, value, f"{key} is a number of steps here, and how many there are is not given")


def take_precision(draft: Draft) -> None:
    """bfloat16 or float32; float16, which needs its loss scaled, is not offered."""
    value, half = draft.take("bf16"), draft.take("fp16")
    if value is not None:
        into = value if isinstance(value, bool) or value == "auto" else True
        draft.put("bf16", value, "bf16", "auto" if half else into)
    if half:
        draft.leave("fp16", half, "float16 is not offered: bf16: auto uses bfloat16 where the device computes in it, "
                    "else float32")  # fmt: skip
        draft.recipe.values["bf16"] = "auto"


def quantised(draft: Draft, key: str, value: Any, bits: int) -> None:
    """Weights held in 4 or 8 bits, with an adapter beside them."""
    draft.put(key, value, "method", "qlora", f"the weights are held in {bits} bits")
    if bits == 8:
        draft.recipe.values["load_in_8bit"] = True


def dataset_name(path: Any) -> str:
    """The name under which a file or a hub's dataset would be registered."""
    text = str(path).rstrip("/")
    known = (".json", ".jsonl", ".csv", ".parquet")
    name = PurePosixPath(text.replace("\\", "/")).name
    return name[: -len(PurePosixPath(name).suffix)] if PurePosixPath(name).suffix in known else name


def number(value: Any) -> float | None:
    """A number, also one that YAML took for text, as it does with `2e-4`; None for anything else."""
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
