"""Warnings about specs that can be trained and are probably not meant."""

from __future__ import annotations

import pytest

from app.core.datasets.kinds import RowKind
from app.core.datasets.models import Dataset, DatasetStatus
from app.core.jobs.advice import dataset_warnings, target_warnings

LLAMA = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
GPT2 = ["c_attn", "c_fc", "c_proj"]
PHI = ["down_proj", "gate_up_proj", "o_proj", "qkv_proj"]


@pytest.mark.parametrize(
    ("targets", "modules"), [(["q_proj", "v_proj"], LLAMA), (["c_attn"], GPT2), (["qkv_proj", "o_proj"], PHI)]
)
def test_attention_alone_is_warned_of_with_the_modules_left_out(targets: list[str], modules: list[str]) -> None:
    (warning,) = target_warnings(targets, modules)
    assert (warning.code, warning.field, warning.fix) == (
        "attention_only",
        "target_modules",
        {"target_modules": "all-linear"},
    )
    assert modules[-2 if modules is GPT2 else 0] in warning.message
    assert not set(targets) & set(warning.message.replace(",", "").replace(";", "").split())


@pytest.mark.parametrize(
    ("targets", "modules"),
    [
        ("all-linear", LLAMA),
        (["q_proj", "up_proj"], LLAMA),
        (["q_proj", "v_proj"], ["k_proj", "q_proj", "v_proj"]),
        (["q_proj"], []),
        ([], LLAMA),
    ],
)
def test_other_choices_are_left_alone(targets: str | list[str], modules: list[str]) -> None:
    assert target_warnings(targets, modules) == []


@pytest.mark.parametrize(
    ("kind", "task", "fix"),
    [
        (RowKind.PREFERENCE, "sft", "dpo"),
        (RowKind.TEXT, "dpo", "text"),
        (RowKind.MESSAGES, "text", "sft"),
        (RowKind.MESSAGES, "sft", None),
        (RowKind.TEXT, "text", None),
        (RowKind.TEXT, "no such task", None),
    ],
)
def test_rows_that_the_task_cannot_learn_from_are_warned_of_with_the_fitting_task(
    kind: RowKind, task: str, fix: str | None
) -> None:
    dataset = Dataset(name="d", format="f", kind=kind, rows=1, bytes=1, sha256="", rows_sha256="", created_at=0.0)
    warnings = dataset_warnings(dataset, task)
    assert [warning.fix for warning in warnings] == ([] if fix is None else [{"task": fix}])
    assert all(f"d holds {kind} rows" in warning.message for warning in warnings)


def test_a_dataset_that_is_still_imported_is_not_warned_of() -> None:
    dataset = Dataset(name="d", format="f", rows=0, bytes=0, sha256="", rows_sha256="", created_at=0.0)
    dataset.status = DatasetStatus.IMPORTING
    assert dataset_warnings(dataset, "dpo") == []
