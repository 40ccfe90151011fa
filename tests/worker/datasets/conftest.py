"""The hub of these tests."""

from tests.worker.fake_hub import hub as hub
