"""Datasets from the Hugging Face hub: one split's data files at one commit, through the hub's ordinary cache."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError
from huggingface_hub.file_download import repo_folder_name

from app.core.datasets.normalise import ROWS
from app.core.errors import DatasetImportError
from worker.artifacts.disk import check_free_space
from worker.base_models.stages import Stages
from worker.datasets.choice import Choice, choose
from worker.hub import TRANSPORT_ERROR, HubKind, explained, fetch_file

_README = "README.md"
_LIST_SECONDS = 30.0
_DATASET = HubKind(
    "dataset", DatasetImportError, "lacks a file that it lists.", "Add it again, or name another revision."
)


@dataclass(frozen=True, slots=True)
class Download:
    """A split's files in the hub's cache, in order, and the commit that they are of."""

    commit: str
    choice: Choice
    files: tuple[Path, ...]


def download_dataset(source: Mapping[str, Any], target: Path, stages: Stages) -> Download:
    """Download the split that `source` names: {hub_id, revision?, config?, split?}.

    The revision is resolved to a commit first, and all files are of it. `target` is where the rows will be written:
    its disk must have room for them. Raises: DatasetImportError, DiskFull, JobCancelled.
    """
    hub_id = source["hub_id"]
    stages.enter("download")
    commit, sizes = _list_files(hub_id, source.get("revision"))
    readme = ""
    if _README in sizes:
        stages.extend(1)
        readme = fetch_file(_DATASET, hub_id, _README, commit, stages).read_text("utf-8", errors="replace")
    choice = choose(hub_id, list(sizes), readme, source.get("config"), source.get("split"))
    _check_space(hub_id, commit, {name: sizes[name] for name in choice.files}, target)
    stages.extend(len(choice.files))
    files = [fetch_file(_DATASET, hub_id, name, commit, stages) for name in choice.files]
    return Download(commit, choice, tuple(files))


def _list_files(hub_id: str, revision: str | None) -> tuple[str, dict[str, int]]:
    """The commit, and the size in bytes of each file (0 where the hub does not say)."""
    with explained(_DATASET, hub_id):
        try:
            info = HfApi().dataset_info(hub_id, revision=revision, files_metadata=True, timeout=_LIST_SECONDS)
        except RevisionNotFoundError as error:
            raise DatasetImportError(
                f"{hub_id} has no revision {revision!r}.",
                advice="Name a branch, a tag or a whole commit id of its hub page.",
            ) from error
        except HfHubHTTPError:
            raise
        except (ConnectionError, TRANSPORT_ERROR) as error:
            raise DatasetImportError(
                f"The hub cannot be reached, so the files of {hub_id} are not known: {error}",
                advice="Connect the machine and import again, or upload the data file.",
            ) from error
    if info.sha is None:
        raise DatasetImportError(f"{hub_id} is empty: it has no commit yet.", advice="Choose another dataset.")
    return info.sha, {file.rfilename: file.size or 0 for file in info.siblings or ()}


def _check_space(hub_id: str, commit: str, sizes: Mapping[str, int], target: Path) -> None:
    """Room for what is not in the cache yet, and for the rows; they take at least what their files do."""
    missing = sum(size for name, size in sizes.items() if not _is_cached(hub_id, name, commit))
    cache = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=hub_id, repo_type="dataset"))
    rows = sum(sizes.values())
    check_free_space(cache, missing + rows if _on_one_disk(cache, target) else missing)
    check_free_space(target / ROWS, rows)


def _is_cached(hub_id: str, name: str, commit: str) -> bool:
    return isinstance(try_to_load_from_cache(hub_id, name, revision=commit, repo_type="dataset"), str)


def _on_one_disk(*paths: Path) -> bool:
    return len({os.stat(next(p for p in path.parents if p.is_dir())).st_dev for path in paths}) == 1
