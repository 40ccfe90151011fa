"""Which files of a hub repository make up which split of which config: by its README's header, else by their names.

Source: https://huggingface.co/docs/hub/datasets-manual-configuration and …/datasets-file-names-and-splits
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

Splits = dict[str, list[str]]  # split -> files, in order
Layout = dict[str, Splits]  # config -> splits

SUFFIXES = (".parquet", ".jsonl", ".json", ".csv")  # where a split comes in several, the first is taken
DEFAULT = "default"  # the config of a repository that names none, and the one taken where several are there
_TRAIN = "train"
_NO_DATA = frozenset({"config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"})
_SHARDED = re.compile(r"data/(\w+(?:\.\w+)*)-\d{5}-of-\d{5}[^/]*")
_CONVERTED = re.compile(r"([^/]+)/(?:partial-)?([^/]+)/\d{4}\.parquet")  # the hub's own branch refs/convert/parquet
_KEYWORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SPLIT_OF_KEYWORD = {word: split for split, words in _KEYWORDS.items() for word in words}
_PIECES = re.compile(r"(\*\*/|\*\*|\*|\?|\[[^]]+\])")  # of a pattern
_WORD = re.compile(rf"(?:^|[-._ 0-9/])({'|'.join(_SPLIT_OF_KEYWORD)})(?=[-._ 0-9/]|$)", re.IGNORECASE)


def read_layout(names: Iterable[str], configs: Sequence[Mapping[str, Any]] = ()) -> Layout:
    """The configs of a repository with these files. `configs` is what its README's header says under that name.

    A config without a file that can be read is left out.
    """
    files = sorted((name for name in names if _is_data(name)), key=_in_order)
    if configs:
        layout = {name_of(config.get("config_name"), DEFAULT): _read_config(files, config) for config in configs}
    else:
        layout = _converted(files) or {DEFAULT: _by_names(files)}
    return {name: splits for name, splits in layout.items() if splits}


def _is_data(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith((".", "__")) for part in path.parts)
    return path.suffix.lower() in SUFFIXES and path.name not in _NO_DATA and not hidden


def _in_order(name: str) -> list[tuple[int, str]]:
    """Numbers in names count as numbers, so that shard 10 comes behind shard 9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _read_config(files: Sequence[str], config: Mapping[str, Any]) -> Splits:
    folder = name_of(config.get("data_dir"), "").strip("/")
    inside = [name for name in files if not folder or name.startswith(f"{folder}/")]
    if not config.get("data_files"):
        return _by_names(inside)
    splits: Splits = {}
    for split, pattern in _patterns(config["data_files"]):
        wanted = f"{folder}/{pattern}" if folder else pattern
        chosen = splits.setdefault(split, [])
        known = set(chosen)
        chosen += [name for name in files if name not in known and _matches(name, wanted)]
    return {split: chosen for split, chosen in splits.items() if chosen}


def _patterns(data_files: Any) -> list[tuple[str, str]]:
    """(split, pattern) pairs of a `data_files` entry: a pattern, a list of them, {split: …}, or [{split, path}, …]."""
    if isinstance(data_files, Mapping):
        return [(str(split), pattern) for split, paths in data_files.items() for pattern in _texts(paths)]
    pairs: list[tuple[str, str]] = []
    for entry in _as_list(data_files):
        if isinstance(entry, Mapping):
            pairs += [(name_of(entry.get("split"), _TRAIN), pattern) for pattern in _texts(entry.get("path"))]
        else:
            pairs.append((_TRAIN, str(entry)))
    return pairs


def _as_list(value: Any) -> list[Any]:
    values = value if isinstance(value, list) else [value]
    return [each for each in values if isinstance(each, str | Mapping)]


def _texts(value: Any) -> list[str]:
    return [each for each in _as_list(value) if isinstance(each, str)]


def _matches(name: str, pattern: str) -> bool:
    """`*` and `?` stay within a folder, `**` crosses folders, a folder's name means all that is in it.

    All ends that a piece may have are followed at once: a README from anywhere must not cost exponential time.
    """
    ends = {0}
    for piece in _PIECES.split(str(PurePosixPath(pattern))):
        ends = {end for start in ends for end in _ends(piece, name, start)}
    return any(end == len(name) or name[end] == "/" for end in ends)


def _ends(piece: str, name: str, start: int) -> Iterable[int]:
    """Where in `name` a piece of a pattern may end that begins at `start`."""
    if piece == "**":
        return range(start, len(name) + 1)
    if piece == "**/":
        return (start, *(at + 1 for at in range(start, len(name)) if name[at] == "/"))
    if piece == "*":
        slash = name.find("/", start)
        return range(start, (len(name) if slash < 0 else slash) + 1)
    if piece[:1] == "[" and (one := _class(piece)):
        return (start + 1,) if one.fullmatch(name[start : start + 1]) else ()
    if piece == "?":
        return (start + 1,) if name[start : start + 1] not in ("", "/") else ()
    return (start + len(piece),) if name.startswith(piece, start) else ()


def _class(piece: str) -> re.Pattern[str] | None:
    """`[a-c]` or `[!a-c]` as an expression; None for one such as [z-a], which stands for itself."""
    try:
        return re.compile(piece.replace("[!", "[^", 1))
    except re.error:
        return None


def name_of(value: Any, otherwise: str) -> str:
    """A name in the header; what is no plain value names nothing (a list may be an alias that grows when printed)."""
    return str(value) if isinstance(value, str | int | float) else otherwise


def _converted(files: Sequence[str]) -> Layout:
    """`config/split/0000.parquet`, where all files lie so."""
    layout: Layout = {}
    for name in files:
        match = _CONVERTED.fullmatch(name)
        if match is None:
            return {}
        layout.setdefault(match[1], {}).setdefault(match[2], []).append(name)
    return layout


def _by_names(files: Sequence[str]) -> Splits:
    """Shards in data/ name their split; else the word in a path that names one; else all files are the train split."""
    sharded = _group((name, _split_of_shard(name)) for name in files)
    splits = sharded or _group((name, _split_of_words(name)) for name in files) or {_TRAIN: list(files)}
    return {split: _of_one_suffix(names) for split, names in splits.items() if names}


def _group(named: Iterable[tuple[str, str | None]]) -> Splits:
    splits: Splits = {}
    for name, split in named:
        if split is not None:
            splits.setdefault(split, []).append(name)
    return splits


def _split_of_shard(name: str) -> str | None:
    match = _SHARDED.fullmatch(name)
    return match[1] if match else None


def _split_of_words(name: str) -> str | None:
    words = _WORD.findall(str(PurePosixPath(name).with_suffix("")))
    return _SPLIT_OF_KEYWORD[words[-1].lower()] if words else None


def _of_one_suffix(names: Sequence[str]) -> list[str]:
    """The same rows often lie there in several formats: those of the format with most files are taken."""
    counts = Counter(PurePosixPath(name).suffix.lower() for name in names)
    taken = max(counts, key=lambda suffix: (counts[suffix], -SUFFIXES.index(suffix)))
    return [name for name in names if PurePosixPath(name).suffix.lower() == taken]
