"""Choose one split of a hub dataset: what its README's header and its file names say, no code of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import yaml

from app.core.errors import DatasetImportError
from worker.datasets.layout import DEFAULT, SUFFIXES, Layout, Splits, name_of, read_layout

MAX_NAMED = 20  # so many configs, splits or file types are named in a message
_CONVERTED_BRANCH = "refs/convert/parquet"


@dataclass(frozen=True, slots=True)
class Choice:
    """The files of one split, in order, as paths in the repository."""

    config: str
    split: str
    files: tuple[str, ...]


def choose(hub_id: str, names: Sequence[str], readme: str, config: str | None, split: str | None) -> Choice:
    """Raises: DatasetImportError that lists what there is, where none is named or the named one is not there."""
    configs = read_configs(hub_id, readme)
    layout = read_layout(names, configs)
    if not layout:
        raise _no_data(hub_id, names)
    config = _pick(hub_id, "config", config, layout, _default_of(configs, layout))
    splits: Splits = layout[config]
    split = _pick(hub_id, "split", split, splits, None)
    return Choice(config, split, tuple(splits[split]))


def read_configs(hub_id: str, readme: str) -> list[Mapping[str, Any]]:
    """`configs` of the README's YAML header. Raises: DatasetImportError where the header is not valid YAML."""
    lines = readme.lstrip("\ufeff").splitlines()
    if not lines or lines[0].strip() != "---" or "---" not in (line.strip() for line in lines[1:]):
        return []
    end = next(number for number, line in enumerate(lines[1:], start=1) if line.strip() == "---")
    try:
        header = yaml.safe_load("\n".join(lines[1:end]))
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # ValueError: a date such as 2024-02-30
        raise DatasetImportError(
            f"The README of {hub_id} has a header that is not valid YAML: {_first_line(error)}",
            advice="Name a revision whose README is in order, or download the data file and upload it.",
        ) from error
    configs = header.get("configs") if isinstance(header, Mapping) else None
    return [config for config in configs if isinstance(config, Mapping)] if isinstance(configs, list) else []


def _default_of(configs: Sequence[Mapping[str, Any]], layout: Layout) -> str | None:
    """The config that the repository itself says is meant where none is named."""
    marked = [name_of(config.get("config_name"), DEFAULT) for config in configs if config.get("default") is True]
    return next((name for name in [*marked, DEFAULT] if name in layout), None)


def _pick(hub_id: str, thing: str, wanted: str | None, there: Mapping[str, Any], default: str | None) -> str:
    if wanted is None and (default is not None or len(there) == 1):
        return default or next(iter(there))
    if wanted in there:
        return str(wanted)
    message = f"has several {thing}s" if wanted is None else f"has no {thing} {wanted!r}"
    raise DatasetImportError(
        f"{hub_id} {message}: there {'is' if len(there) == 1 else 'are'} {_listed(there)}.",
        advice=f"Add it again with one of them as its {thing}.",
    )


def _no_data(hub_id: str, names: Sequence[str]) -> DatasetImportError:
    found = dict.fromkeys(PurePosixPath(name).suffix or name for name in names if not name.startswith("."))
    readable = ", ".join(SUFFIXES)
    if any("/" not in name and name.endswith(".py") for name in names):
        return DatasetImportError(
            f"{hub_id} makes its rows by Python code, which is never run here.",
            advice=f"Name the revision {_CONVERTED_BRANCH} where the hub has it: the same rows as Parquet files.",
        )
    return DatasetImportError(
        f"{hub_id} has no data file of a known type ({readable}); its files are: {_listed(found) or 'none'}.",
        advice="Choose a dataset with such files, or convert it and upload the file.",
    )


def _listed(names: Iterable[str]) -> str:
    known = list(names)
    return ", ".join(name[:80] for name in known[:MAX_NAMED]) + (", …" if len(known) > MAX_NAMED else "")


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
