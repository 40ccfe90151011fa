"""`loradeck secrets`: the value comes from standard input alone."""

from __future__ import annotations

import io

import pytest

from tests.cli.conftest import Command
from tests.live_server import Served

TOKEN = "hf_" + "Q7vX" * 8 + "wxyz"


def test_a_token_is_read_from_standard_input(
    loradeck: Command, server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{TOKEN}\n"))
    done = loradeck("secrets", "set", "hf_token", "--json")
    assert (done.code, done.json["shown"], done.json["source"]) == (0, "hf_…wxyz", "stored")
    assert (server.home / "secrets" / "hf_token").read_text() == TOKEN
    listed = loradeck("secrets", "list")
    assert "hf_…wxyz" in listed.out
    assert TOKEN not in done.out + done.err + listed.out + listed.err
    assert loradeck("secrets", "remove", "hf_token").code == 0
    assert not (server.home / "secrets" / "hf_token").exists()


def test_a_value_on_the_command_line_is_refused(loradeck: Command, server: Served) -> None:
    assert loradeck("secrets", "set", "hf_token", TOKEN).code == 2
    assert not (server.home / "secrets" / "hf_token").exists()


def test_what_is_wrong_names_its_field(loradeck: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    empty = loradeck("secrets", "set", "hf_token", "--json")
    assert (empty.code, empty.json["error"]["field"]) == (2, "value")
    assert loradeck("secrets", "remove", "hf_token").code == 2
