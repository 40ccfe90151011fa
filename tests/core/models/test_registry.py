"""Models are registered from allowed folders, GGUF files there, and hub ids."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlmodel import Session, select

from app.core.errors import Conflict, InvalidInput, NotFound
from app.core.jobs.models import Job
from app.core.jobs.status import JobKind, JobStatus
from app.core.models import registry
from app.core.models.models import BaseModel, ModelStatus
from app.core.models.registry import add_imported, add_model, find_model, get_model, import_again, list_models
from app.core.names import clean_name
from tests.core.models.gguf_file import PARAMETERS as GGUF_PARAMETERS
from tests.core.models.gguf_file import write_gguf
from tests.core.models.safetensors import PARAMETERS, write_model


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "allowed"
    root.mkdir()
    return root


def _refused(session: Session, reference: str, roots: list[Path]) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        add_model(session, reference, roots)
    assert [fault.field for fault in caught.value.faults] == ["path"]
    assert list_models(session) == []
    assert session.exec(select(Job)).all() == []
    return caught.value


def test_a_folder_is_ready_at_once(session: Session, root: Path) -> None:
    model = add_model(session, str(write_model(root / "tiny")), [root])
    assert (model.name, model.status, model.parameters) == ("tiny", ModelStatus.READY, PARAMETERS)
    assert (model.path, model.source) == (str(root / "tiny"), {"kind": "folder", "path": str(root / "tiny")})
    assert session.exec(select(Job)).all() == []


@pytest.mark.parametrize(
    ("reference", "name", "source"),
    [
        ("Owner/My-Model_1.5B", "my-model_1.5b", {"kind": "hub", "hub_id": "Owner/My-Model_1.5B"}),
        ("demo.gguf", "demo", {"kind": "gguf"}),
    ],
)
def test_a_hub_id_and_a_gguf_are_made_ready_by_a_job(
    session: Session, root: Path, reference: str, name: str, source: dict[str, str]
) -> None:
    if source["kind"] == "gguf":
        write_gguf(root / reference)
        reference = str(root / reference)
        source = {**source, "path": reference}
    model = add_model(session, reference, [root])
    assert (model.name, model.status, model.source) == (name, ModelStatus.IMPORTING, source)
    (job,) = session.exec(select(Job)).all()
    assert (job.kind, job.status, job.base_model_id, job.spec) == (JobKind.IMPORT, JobStatus.QUEUED, model.id, source)
    assert job.priority > 0


def test_a_name_may_be_given(session: Session, root: Path) -> None:
    assert add_model(session, str(write_model(root / "tiny")), [root], "mine").name == "mine"
    assert add_model(session, "owner/model", [], "theirs").name == "theirs"


def test_only_folders_under_an_allowed_root_are_taken(session: Session, root: Path, tmp_path: Path) -> None:
    outside = write_model(tmp_path / "outside")
    error = _refused(session, str(outside), [root])
    assert error.message == f"path: {outside} is not under an allowed folder."
    assert "LORADECK_LOCAL_ROOTS" in str(error.advice)
    _refused(session, str(outside), [])
    _refused(session, "/etc/passwd", [root])
    _refused(session, f"{root}/../outside", [root])


def test_a_sibling_whose_name_begins_like_a_root_is_outside(session: Session, root: Path, tmp_path: Path) -> None:
    _refused(session, str(write_model(tmp_path / "allowed-not")), [root])


def test_a_link_out_of_a_root_is_outside(session: Session, root: Path, tmp_path: Path) -> None:
    write_model(tmp_path / "outside")
    (root / "link").symlink_to(tmp_path / "outside")
    _refused(session, str(root / "link"), [root])


def test_a_root_may_itself_be_a_link(session: Session, root: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(root)
    write_model(root / "tiny")
    assert add_model(session, str(tmp_path / "alias" / "tiny"), [tmp_path / "alias"]).path == str(root / "tiny")


def test_whether_a_file_exists_outside_is_not_told(session: Session, root: Path, tmp_path: Path) -> None:
    there, absent = _refused(session, "/etc/passwd", [root]), _refused(session, "/etc/no-such-file", [root])
    assert there.message.replace("passwd", "") == absent.message.replace("no-such-file", "")


def test_a_folder_that_is_missing_is_said(session: Session, root: Path) -> None:
    assert _refused(session, str(root / "gone"), [root]).message == f"path: {root / 'gone'} does not exist."


@pytest.mark.parametrize(
    "reference", ["tiny", "a/b/c", "../x", "https://example.com/a", "owner/", "/owner\0", "~nobody-here/x", "a" * 5000,
                  "owner/model name", "-x/y", "owner/model\n"]
)  # fmt: skip
def test_what_is_neither_a_folder_nor_a_hub_id_is_refused(
    session: Session, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str
) -> None:
    monkeypatch.chdir(tmp_path)
    _refused(session, reference, [root])


def test_a_name_is_used_once(session: Session, root: Path) -> None:
    write_model(root / "tiny")
    add_model(session, str(root / "tiny"), [root])
    for reference in (str(root / "tiny"), "owner/Tiny"):
        with pytest.raises(Conflict, match="A base model named 'tiny' is registered already") as caught:
            add_model(session, reference, [root])
        assert (caught.value.advice, caught.value.field) == ("Give another name.", "name")
    assert session.exec(select(Job)).all() == []


@pytest.mark.parametrize("name", ["1", "007", "٣", "9" * 200, " 12 "])
def test_a_name_that_reads_as_an_id_is_refused(session: Session, root: Path, name: str) -> None:
    write_model(root / "tiny")
    for reference, given in ((str(root / "tiny"), name), ("owner/model", name), (f"owner/{name.strip()}", None)):
        if reference.isascii():
            with pytest.raises(InvalidInput, match="is a number, as ids are") as caught:
                add_model(session, reference, [root], given)
            assert [fault.field for fault in caught.value.faults] == ["name"]
            assert caught.value.advice == "Give the base model a name with a letter in it."
    assert list_models(session) == []


def test_names_are_printable_and_their_spaces_single() -> None:
    assert clean_name(" my \n  model 2 ", "base model") == "my model 2"
    assert clean_name("x" * 119 + " yz", "base model") == "x" * 119
    for name in ("", " \t", "a\x00b", "\ud800", "\u202e"):
        with pytest.raises(InvalidInput, match="A dataset needs a printable name") as caught:
            clean_name(name, "dataset")
        assert caught.value.faults[0].field == "name"


def test_a_gguf_is_known_by_its_header_while_it_is_converted(session: Session, root: Path) -> None:
    model = add_model(session, str(write_gguf(root / "m.gguf")), [root])
    assert (model.status, model.path, model.bytes) == (ModelStatus.IMPORTING, None, None)
    assert (model.architecture, model.parameters, model.max_length) == ("LlamaForCausalLM", GGUF_PARAMETERS, 2048)
    assert model.linear_modules == ["down_proj", "q_proj", "v_proj"]
    assert find_model(session, str(root / "m.gguf")) == model


def test_a_damaged_gguf_is_refused(session: Session, root: Path) -> None:
    path = write_gguf(root / "m.gguf")
    path.write_bytes(path.read_bytes()[:100])
    error = _refused(session, str(path), [root])
    assert error.message == "path: m.gguf is not a readable GGUF file: it is cut short at 100 bytes, within its header"


def test_the_demo_model_is_known_by_its_header_too(
    session: Session, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "find_demo_gguf", lambda: write_gguf(root / "demo.gguf"))
    model = add_imported(session, "demo", {"kind": "demo"})
    assert (model.source, model.linear_modules) == ({"kind": "demo"}, ["down_proj", "q_proj", "v_proj"])


def test_a_damaged_demo_model_is_left_to_its_import(
    session: Session, root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (root / "demo.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(registry, "find_demo_gguf", lambda: root / "demo.gguf")
    model = add_imported(session, "demo", {"kind": "demo"})
    assert (model.status, model.linear_modules) == (ModelStatus.IMPORTING, [])
    assert "demo.gguf is not a readable GGUF file" in caplog.text
    (job,) = session.exec(select(Job)).all()
    assert job.base_model_id == model.id


def test_models_are_found_by_name_id_folder_and_hub_id(session: Session, root: Path) -> None:
    local = add_model(session, str(write_model(root / "tiny")), [root])
    hub = BaseModel(name="1", source={"kind": "hub", "hub_id": "owner/model"}, created_at=0)  # as older versions took
    session.add(hub)
    session.flush()
    assert find_model(session, "tiny") == find_model(session, str(root / "tiny")) == local
    assert find_model(session, "1") == hub, "a name that looks like an id is a name"
    assert find_model(session, "2") == find_model(session, "owner/model") == hub
    assert [model.name for model in list_models(session)] == ["1", "tiny"]
    for reference in ("3", "9" * 30, "", "owner/other"):
        with pytest.raises(NotFound, match="There is no base model") as caught:
            get_model(session, reference)
        assert caught.value.advice == "Registered: 1, tiny."


def test_only_a_failed_import_is_repeated(session: Session, root: Path) -> None:
    model = add_model(session, str(write_model(root / "tiny")), [root])
    with pytest.raises(Conflict, match="tiny is ready; only a model whose import failed is imported again"):
        import_again(session, model)
    assert session.exec(select(Job)).all() == []


def test_a_gguf_is_read_anew_when_it_is_imported_again(session: Session, root: Path) -> None:
    model = add_model(session, str(write_gguf(root / "m.gguf")), [root])
    model.status, model.linear_modules = ModelStatus.FAILED, []
    session.add(model)
    session.flush()
    assert add_model(session, str(root / "m.gguf"), [root]).id == model.id
    assert (model.status, model.linear_modules) == (ModelStatus.IMPORTING, ["down_proj", "q_proj", "v_proj"])


def test_a_model_whose_import_failed_is_imported_again_by_name_or_hub_id(session: Session) -> None:
    for reference in ("mine", "owner/mine"):
        model = find_model(session, "mine") or add_imported(session, "mine", {"kind": "hub", "hub_id": "owner/mine"})
        model.status, model.error = ModelStatus.FAILED, "no network"
        session.add(model)
        session.flush()
        again = add_model(session, reference, [])
        assert (again.id, again.status, again.error) == (model.id, ModelStatus.IMPORTING, None)
    jobs = session.exec(select(Job)).all()
    assert [(job.kind, job.base_model_id) for job in jobs] == [(JobKind.IMPORT, model.id)] * 3
