"""One split is chosen; where that is not clear, the message lists what there is."""

from __future__ import annotations

import pytest

from app.core.errors import DatasetImportError
from worker.datasets.choice import Choice, choose, read_configs

TWO_CONFIGS = """---
license: mit
configs:
- config_name: easy
  data_files: easy.jsonl
- config_name: hard
  data_files: hard.jsonl
---
# A dataset
"""
NAMES = ["README.md", "easy.jsonl", "hard.jsonl"]


def _refused(names: list[str], readme: str = "", config: str | None = None, split: str | None = None) -> str:
    with pytest.raises(DatasetImportError) as caught:
        choose("owner/data", names, readme, config, split)
    return f"{caught.value.message} {caught.value.advice}"


def test_what_is_the_only_one_need_not_be_named() -> None:
    assert choose("owner/data", ["x.csv"], "# no header", None, None) == Choice("default", "train", ("x.csv",))
    assert choose("owner/data", ["dev.csv"], "", None, None).split == "validation"


def test_what_is_named_is_chosen() -> None:
    assert choose("owner/data", NAMES, TWO_CONFIGS, "hard", "train") == Choice("hard", "train", ("hard.jsonl",))


def test_several_configs_or_splits_are_listed() -> None:
    assert _refused(NAMES, TWO_CONFIGS) == (
        "owner/data has several configs: there are easy, hard. Add it again with one of them as its config."
    )
    assert _refused(["train.csv", "test.csv"]) == (
        "owner/data has several splits: there are test, train. Add it again with one of them as its split."
    )


def test_one_that_is_not_there_is_said() -> None:
    assert _refused(NAMES, TWO_CONFIGS, config="medium").startswith(
        "owner/data has no config 'medium': there are easy, hard."
    )
    assert _refused(["train.csv"], split="test").startswith("owner/data has no split 'test': there is train.")


def test_many_are_listed_in_part() -> None:
    names = [f"data/s{number}-00000-of-00001.csv" for number in range(30)]
    message = _refused(names)
    assert "s0, s1, s2," in message
    assert "s19, …" in message
    assert "s20" not in message


@pytest.mark.parametrize("extra", ["  default: true\n", ""], ids=["marked", "named so"])
def test_the_repositorys_own_default_is_taken(extra: str) -> None:
    name = "hard" if extra else "default"
    readme = TWO_CONFIGS.replace("config_name: hard\n", f"config_name: {name}\n{extra}")
    assert choose("owner/data", NAMES, readme, None, None).files == ("hard.jsonl",)


def test_a_repository_without_data_says_what_it_has() -> None:
    assert _refused(["README.md", "a/b.arrow", "LICENSE", ".gitattributes"]) == (
        "owner/data has no data file of a known type (.parquet, .jsonl, .json, .csv); its files are: .md, .arrow, "
        "LICENSE. Choose a dataset with such files, or convert it and upload the file."
    )
    assert "its files are: none." in _refused([])


def test_a_repository_of_code_is_not_run() -> None:
    message = _refused(["data.py", "README.md"])
    assert message.startswith("owner/data makes its rows by Python code, which is never run here.")
    assert "refs/convert/parquet" in message


@pytest.mark.parametrize(
    "readme", ["", "# Title", "---\nno end", "---\n- a list\n---", "---\nconfigs: 7\n---", "---\nconfigs: [7]\n---"]
)
def test_a_readme_without_configs_names_none(readme: str) -> None:
    assert read_configs("owner/data", readme) == []


def test_a_header_is_read_whatever_stands_behind_it() -> None:
    for readme in (TWO_CONFIGS, "\ufeff" + TWO_CONFIGS.replace("\n", "\r\n"), TWO_CONFIGS + "---\n{not: [yaml\n"):
        assert [config["config_name"] for config in read_configs("owner/data", readme)] == ["easy", "hard"]


def test_a_date_that_is_none_in_a_header_is_said() -> None:
    """PyYAML raises no YAMLError for it."""
    assert _refused(["x.csv"], "---\nupdated: 2024-02-30\n---\n").startswith(
        "The README of owner/data has a header that is not valid YAML: day is out of range"
    )


def test_a_broken_header_is_said() -> None:
    assert _refused(["x.csv"], "---\n{not: [yaml\n---\n").startswith(
        "The README of owner/data has a header that is not valid YAML: while parsing a flow"
    )
