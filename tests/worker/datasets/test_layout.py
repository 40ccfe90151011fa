"""Which files are which split, by the README's header and by names."""

from __future__ import annotations

from typing import Any

import pytest

from worker.datasets.layout import read_layout

NOT_DATA = ["README.md", ".gitattributes", "dataset_infos.json", "config.json", "images/1.png", ".cache/x.json",
            "__pycache__/y.json", "data/notes.txt"]  # fmt: skip


def _default(names: list[str]) -> dict[str, list[str]]:
    return read_layout([*names, *NOT_DATA])["default"]


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        pytest.param(["rows.jsonl"], {"train": ["rows.jsonl"]}, id="a file of any name"),
        pytest.param(["b.json", "a.json"], {"train": ["a.json", "b.json"]}, id="files of any name"),
        pytest.param(["train.jsonl"], {"train": ["train.jsonl"]}, id="train"),
        pytest.param(
            ["train.csv", "test.csv", "dev.csv"],
            {"train": ["train.csv"], "test": ["test.csv"], "validation": ["dev.csv"]},
            id="a file each",
        ),
        pytest.param(
            ["data/train-00001-of-00002.parquet", "data/train-00000-of-00002-a1b2.parquet", "train.jsonl",
             "data/test_sft-00000-of-00001.parquet"],
            {"train": ["data/train-00000-of-00002-a1b2.parquet", "data/train-00001-of-00002.parquet"],
             "test_sft": ["data/test_sft-00000-of-00001.parquet"]},
            id="shards",
        ),
        pytest.param(
            ["training/10.jsonl", "training/9.jsonl", "evaluation/1.jsonl"],
            {"train": ["training/9.jsonl", "training/10.jsonl"], "test": ["evaluation/1.jsonl"]},
            id="folders",
        ),
        pytest.param(
            ["my-data_train.v2.json", "extra.json"], {"train": ["my-data_train.v2.json"]}, id="a word in a name"
        ),
        pytest.param(["constrained.json", "latest.json"], {"train": ["constrained.json", "latest.json"]}, id="no word"),
        pytest.param(["train/test.jsonl"], {"test": ["train/test.jsonl"]}, id="the last word"),
        pytest.param(["train.JSONL"], {"train": ["train.JSONL"]}, id="capitals"),
        pytest.param(["rows.csv", "rows.json", "rows.parquet"], {"train": ["rows.parquet"]}, id="one format of three"),
        pytest.param(
            ["a.csv", "b.csv", "all.parquet"], {"train": ["a.csv", "b.csv"]}, id="the format with most files"
        ),
    ],
)  # fmt: skip
def test_names_tell_splits(names: list[str], splits: dict[str, list[str]]) -> None:
    assert _default(names) == splits


def test_without_data_there_is_no_config() -> None:
    assert read_layout(NOT_DATA) == {}
    assert read_layout(NOT_DATA, [{"config_name": "a", "data_files": "*.png"}]) == {}


def test_the_hubs_own_parquet_branch_has_folders_of_configs_and_splits() -> None:
    names = ["main/train/0001.parquet", "main/train/0000.parquet", "main/test/0000.parquet",
             "socratic/partial-train/0000.parquet"]  # fmt: skip
    assert read_layout(names) == {
        "main": {"test": ["main/test/0000.parquet"], "train": ["main/train/0000.parquet", "main/train/0001.parquet"]},
        "socratic": {"train": ["socratic/partial-train/0000.parquet"]},
    }


FILES = ["en/a.jsonl", "en/b.jsonl", "en/deep/c.jsonl", "de/a.jsonl", "test.csv", "en/d[1].jsonl"]


@pytest.mark.parametrize(
    ("data_files", "splits"),
    [
        pytest.param("en/a.jsonl", {"train": ["en/a.jsonl"]}, id="a file"),
        pytest.param("en/*.jsonl", {"train": ["en/a.jsonl", "en/b.jsonl", "en/d[1].jsonl"]}, id="star in a folder"),
        pytest.param("**/c.jsonl", {"train": ["en/deep/c.jsonl"]}, id="two stars"),
        pytest.param("**/test.csv", {"train": ["test.csv"]}, id="two stars mean no folder too"),
        pytest.param("de", {"train": ["de/a.jsonl"]}, id="a folder"),
        pytest.param("./de/", {"train": ["de/a.jsonl"]}, id="a folder with a slash"),
        pytest.param("e?/[!a-c].jsonl", {}, id="no match is no split"),
        pytest.param("en/[a-b].jsonl", {"train": ["en/a.jsonl", "en/b.jsonl"]}, id="a class"),
        pytest.param("en/[z-a].jsonl", {}, id="a class that is none"),
        pytest.param(["de/a.jsonl", "en/*"], {"train": ["de/a.jsonl", "en/a.jsonl", "en/b.jsonl", "en/d[1].jsonl",
                                                        "en/deep/c.jsonl"]}, id="a list keeps its order"),
        pytest.param({"train": "en/a.jsonl", "held_out": ["test.csv"]},
                     {"train": ["en/a.jsonl"], "held_out": ["test.csv"]}, id="splits as keys"),
        pytest.param([{"split": "train", "path": "en/a.jsonl"}, {"split": "test", "path": ["test.csv", "gone.csv"]}],
                     {"train": ["en/a.jsonl"], "test": ["test.csv"]}, id="splits as a list"),
        pytest.param("**[!a-z].jsonl", {"train": ["en/d[1].jsonl"]}, id="two stars within a name, and no letter"),
        pytest.param("en/d[1].jsonl", {}, id="a name that is a class"),
        pytest.param("**/**/e*/**/?.jsonl", {"train": ["en/a.jsonl", "en/b.jsonl", "en/deep/c.jsonl"]}, id="stars"),
        pytest.param({"train": {"path": "en/a.jsonl"}}, {}, id="a mapping where a pattern belongs"),
        pytest.param([{"split": ["test"], "path": "test.csv"}], {"train": ["test.csv"]}, id="a split that is no name"),
        pytest.param(None, {"test": ["test.csv"]}, id="nothing: by names"),
        pytest.param(7, {}, id="a number"),
    ],
)  # fmt: skip
def test_the_header_tells_splits(data_files: Any, splits: dict[str, list[str]]) -> None:
    config = {"config_name": "one", "data_files": data_files}
    assert read_layout(FILES, [config]) == ({"one": splits} if splits else {})


def test_a_config_may_have_a_folder_of_its_own() -> None:
    configs = [
        {"config_name": "english", "data_dir": "en"},
        {"config_name": "german", "data_dir": "de/", "data_files": [{"split": "test", "path": "*.jsonl"}]},
        {"data_files": "test.csv"},
        {"config_name": "gone", "data_dir": "fr"},
    ]
    assert read_layout(FILES, configs) == {
        "english": {"train": ["en/a.jsonl", "en/b.jsonl", "en/d[1].jsonl", "en/deep/c.jsonl"]},
        "german": {"test": ["de/a.jsonl"]},
        "default": {"train": ["test.csv"]},
    }


@pytest.mark.parametrize("pattern", ["**/" * 24 + "z.jsonl", "*a" * 24 + "z.jsonl", "**a" * 24 + "z.jsonl"])
def test_a_pattern_of_many_stars_costs_no_exponential_time(pattern: str) -> None:
    """A README is written by anyone; a backtracking match would take years here."""
    files = ["a/" * 48 + "b.jsonl", "a" * 96 + ".jsonl"]
    assert read_layout(files, [{"data_files": pattern}]) == {}
