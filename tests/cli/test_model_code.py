"""`loradeck models code`, `allow-code`, `withdraw-code`."""

from __future__ import annotations

from tests.cli.conftest import Command
from tests.core.models.test_consent import own_code_folder
from tests.live_server import Served


def test_code_is_read_allowed_and_taken_back(loradeck: Command, server: Served) -> None:
    place = own_code_folder(server.home / "own code")
    assert loradeck("models", "add", str(place), "--json").json["needs_code"]
    shown = loradeck("models", "code", "own code")
    assert "modeling.py" in shown.out
    assert "allowed: false" in shown.out
    assert loradeck("models", "code", "own code", "--file", "helper.py").out == "help = 1\n"
    assert loradeck("models", "code", "own code", "--file", "gone.py").code == 2
    sha256 = loradeck("models", "code", "own code", "--json").json["sha256"]
    wrong = loradeck("models", "allow-code", "own code", "0" * 64)
    assert (wrong.code, "Look at it again" in wrong.err) == (1, True)
    assert "allowed: true" in loradeck("models", "allow-code", "own code", sha256).out
    (place / "helper.py").write_text("help = 2\n")
    assert "change: helper.py has changed" in loradeck("models", "code", "own code").out
    taken_back = loradeck("models", "withdraw-code", "own code", sha256, "--json").json
    assert taken_back["consents"][0]["withdrawn_by"] == "installation"
