"""The store of secrets, and what masks them wherever text leaves the process."""

from __future__ import annotations

import io
import logging

import pytest

from app.core import masking
from app.core.errors import InvalidInput, NotFound
from app.core.logs import set_up_logging
from app.core.masking import mask, mask_values, masked, remember
from app.core.paths import DataFolder
from app.core.secrets import HF_TOKEN, describe_secret, find_secret, remove_secret, set_secret

TOKEN = "hf_" + "Q7vX" * 8 + "wxyz"
OTHER = "secret-of-another-form-1234"


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "_known", set())
    monkeypatch.delenv("HF_TOKEN", raising=False)


def test_a_secret_is_its_owners_alone_and_shown_masked(folder: DataFolder) -> None:
    view = set_secret(folder, HF_TOKEN, f"  {TOKEN}\n")
    assert (view.source, view.shown) == ("stored", "hf_…wxyz")
    assert find_secret(folder, HF_TOKEN) == TOKEN
    path = folder.secrets / HF_TOKEN
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert TOKEN not in repr(view)
    assert remove_secret(folder, HF_TOKEN).source is None
    assert find_secret(folder, HF_TOKEN) is None
    with pytest.raises(NotFound):
        remove_secret(folder, HF_TOKEN)


def test_a_stored_secret_goes_before_that_of_the_environment(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert describe_secret(folder, HF_TOKEN).source is None
    monkeypatch.setenv("HF_TOKEN", OTHER)
    view = describe_secret(folder, HF_TOKEN)
    assert (view.source, view.shown, view.variable) == ("environment", "…1234", "HF_TOKEN")
    set_secret(folder, HF_TOKEN, TOKEN)
    assert find_secret(folder, HF_TOKEN) == TOKEN
    assert remove_secret(folder, HF_TOKEN).source == "environment"


@pytest.mark.parametrize("value", ["", "  ", "two words", "hf_ümlaut", "hf_a\nb", "x" * 600])
def test_what_is_no_token_is_refused_and_not_told(folder: DataFolder, value: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        set_secret(folder, HF_TOKEN, value)
    assert refused.value.faults[0].field == "value"
    assert not value.strip() or value not in str(refused.value)
    assert not (folder.secrets / HF_TOKEN).exists()


def test_a_name_is_never_a_path(folder: DataFolder) -> None:
    for name in ("../api_token", "api_token", "", "hf_token/../../x"):
        for act in (lambda name: set_secret(folder, name, TOKEN), lambda name: describe_secret(folder, name)):
            with pytest.raises(NotFound):
                act(name)


def test_what_is_known_and_what_looks_like_a_hub_token_is_masked() -> None:
    assert mask(f"GET https://user:{TOKEN}@hub/x") == "GET https://user:hf_…wxyz@hub/x"
    assert mask(OTHER) == OTHER
    remember(OTHER)
    assert mask(f"<{OTHER}{OTHER}>") == "<…1234…1234>"
    assert mask_values({"a": [TOKEN, 1, None], TOKEN: (OTHER,)}) == {"a": ["hf_…wxyz", 1, None], "hf_…wxyz": ["…1234"]}
    assert mask("PUT https://s3/x?X-Amz-Signature=0ab&part=1 'y'") == "PUT https://s3/x?X-Amz-Signature=…&part=1 'y'"
    assert mask("hf_hub_download of hf_token") == "hf_hub_download of hf_token"


@pytest.mark.parametrize(("secret", "shown"), [(TOKEN, "hf_…wxyz"), ("hf_short", "hf_…"), ("12345678", "…")])
def test_little_of_a_secret_is_shown(secret: str, shown: str) -> None:
    assert masked(secret) == shown


def test_log_records_and_their_tracebacks_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    stream = io.StringIO()
    set_up_logging("INFO", stream)
    try:
        raise ValueError(f"refused {TOKEN}")
    except ValueError:
        logging.getLogger("x").exception("with %s", TOKEN)
    said = stream.getvalue()
    assert TOKEN not in said
    assert said.count("hf_…wxyz") == 2


def test_what_a_library_prints_is_masked() -> None:
    stream = io.StringIO()
    shown = masking.masking(stream)
    print(f"curl -H 'Authorization: Bearer {TOKEN}'", file=shown, flush=True)
    shown.writelines([TOKEN, "\n"])
    assert stream.getvalue() == "curl -H 'Authorization: Bearer hf_…wxyz'\nhf_…wxyz\n"
