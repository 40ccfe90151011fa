"""The summary of a training job: what it came to, on what rows, and on what machine."""

from __future__ import annotations

from typing import Any

from worker.training.callback import SpoolCallback
from worker.training.model import Hardware, count_parameters
from worker.training.pairs import Pairs
from worker.training.rows import EncodedRows


def summarise(
    callback: SpoolCallback, model: Any, rows: EncodedRows, hardware: Hardware, extra: dict[str, Any]
) -> dict[str, Any]:
    """What is known once training has ended; `extra` is what the run itself adds: its steps, artifacts and attempts."""
    totals, counts = callback.totals, rows.counts
    trainable, everything = count_parameters(model)
    return {
        "train_loss": totals.train_loss,
        "eval_loss": callback.best.loss if extra["saved_step"] < extra["steps"] else totals.eval_loss,
        "tokens": totals.tokens,
        "train_seconds": round(totals.train_seconds, 3),
        "tokens_per_second": round(totals.tokens / max(totals.train_seconds, 1e-9), 2),
        "trainable_parameters": trainable,
        "all_parameters": everything,
        "trained_tokens_per_epoch": rows.train.trained_tokens,
        "row_unit": "pair" if isinstance(rows.train, Pairs) else "sequence",
        "rows_train": len(rows.train),
        "rows_eval": len(rows.evaluation),
        **({"eval_rows_left_to_train": rows.left_to_train} if rows.left_to_train else {}),
        "rows_dropped": counts.dropped.count,
        "rows_truncated": counts.truncated.count,
        "rows_split": counts.split.count,
        "first_rows": {"dropped": counts.dropped.first, "truncated": counts.truncated.first},
        "device": str(hardware.device),
        "dtype": hardware.dtype_name,
        **totals.beside,
        **extra,
    }
