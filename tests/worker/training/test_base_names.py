"""What an adapter calls its base: a name that other programs find where there is one, else the one it has here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.core.jobs.spec import parse_spec
from tests.worker.tiny import make_model, make_tokenizer
from worker.artifacts.folders import publish_artifact
from worker.artifacts.merge_inputs import check_adapter
from worker.training.adapters import add_lora
from worker.training.outputs import AdapterOutput

pytestmark = pytest.mark.model

SPEC = parse_spec({"base_model": "tiny", "dataset": "d", "r": 2})


@pytest.mark.parametrize(("named", "commit"), [("owner/Tiny", "c0ffee"), ("tiny", None)])
def test_an_adapter_names_its_base(tmp_path: Path, named: str, commit: str | None) -> None:
    model = add_lora(make_model(make_tokenizer()), SPEC, named, commit)
    output = AdapterOutput(model, SPEC, named, commit is not None)
    with publish_artifact(tmp_path / "adapter", {"base_model": {"name": "tiny"}}, 0) as folder:
        output.final(model).write(folder)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == (named, commit)
    card = output.card(3)
    assert f'from_pretrained("{named if commit else "path/to/tiny"}"' in card
    assert ("AutoPeftModelForCausalLM" in card) is (commit is not None)
    assert check_adapter(tmp_path / "adapter", {"name": "tiny"})["base_model"]["name"] == "tiny"
