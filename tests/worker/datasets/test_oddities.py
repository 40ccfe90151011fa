"""Odd characters are found, and what only looks odd is left alone."""

from __future__ import annotations

import pytest

from app.core.datasets.report import ProblemKind
from worker.datasets.oddities import find_oddities


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("lost \ufffd here", ProblemKind.REPLACEMENT_CHARACTER),
        ("Café".encode().decode("cp1252"), ProblemKind.MOJIBAKE),
        ("it\u2019s".encode().decode("cp1252"), ProblemKind.MOJIBAKE),
        ("20 °C".encode().decode("latin-1"), ProblemKind.MOJIBAKE),
        ("Привет".encode().decode("cp1252", "replace")[:4], ProblemKind.MOJIBAKE),
        ("\U0001f600".encode().decode("cp1252"), ProblemKind.MOJIBAKE),
        ("a\x1b[31mred", ProblemKind.CONTROL_CHARACTER),
        ("next\x85line", ProblemKind.CONTROL_CHARACTER),
        ("no\ufffecharacter", ProblemKind.CONTROL_CHARACTER),
        ("zero\u200bwidth", ProblemKind.INVISIBLE_CHARACTER),
        ("a\u200db", ProblemKind.INVISIBLE_CHARACTER),
        ("hidden \U000e0041\U000e0042 tags", ProblemKind.INVISIBLE_CHARACTER),
        ("over\u202eride", ProblemKind.BIDI_CONTROL),
    ],
)
def test_an_odd_character_is_found(text: str, kind: ProblemKind) -> None:
    ((found, field, message),) = find_oddities({"messages": [{"role": "user", "content": text}]})
    assert (found, field) == (kind, "messages[0].content")
    assert message.isprintable()  # what cannot be seen is shown by its number


@pytest.mark.parametrize(
    "text",
    [
        "Plain, with\ttabs and\r\nlines.",
        "Crème brûlée, naïve façade, Ångström, 120 Å\u00b2, ÄÖÜ, Ñandú, IRMÃ\u201d",
        "«\u00a0voilà\u00a0» — „Spaß“ “voilà”… É»",
        "Привет, мир. Ελληνικά. 日本語。 العربية עברית हिन्दी",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",  # a family
        "\U0001f3f4" + "".join(chr(0xE0000 + ord(letter)) for letter in "gbeng\x7f"),  # the flag of England
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian
    ],
)
def test_what_only_looks_odd_is_left_alone(text: str) -> None:
    assert list(find_oddities({"text": text})) == []


def test_each_kind_is_told_once_a_text_and_where_it_stands() -> None:
    found = list(find_oddities({"a": "x\u200by\u200bz", "b": ["\u200b", {"c": "\ufffd\u200b"}], "d": 7}))
    assert [(kind.value, field) for kind, field, _ in found] == [
        ("invisible_character", "a"), ("invisible_character", "b[0]"),
        ("replacement_character", "b[1].c"), ("invisible_character", "b[1].c"),
    ]  # fmt: skip
    assert found[0][2] == "holds U+200B (zero width space) at character 2: “x<U+200B>y<U+200B>z”"


def test_a_wrong_decoding_says_what_was_meant() -> None:
    ((_, _, message),) = find_oddities("Un café crème.".encode().decode("cp1252"))
    assert message.startswith("reads Ã© where é was probably meant, at character 7: “Un cafÃ© crÃ¨me")
