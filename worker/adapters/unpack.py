"""A zip or a folder, taken in without trust: only the files that an adapter needs, under the names they have there."""

from __future__ import annotations

import errno
import os
import stat
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from app.core.adapters.fields import CONFIG, WEIGHTS
from app.core.errors import JobError

WANTED = frozenset(
    {
        CONFIG, WEIGHTS, "README.md", "LICENSE", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
        "added_tokens.json", "chat_template.jinja", "vocab.json", "merges.txt", "tokenizer.model",
    }
)  # fmt: skip
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_CHUNK_BYTES = 1 << 20
_MOST_FILES = 10_000
_MOST_SMALL_BYTES = 64 << 20  # of a file beside the weights
_MOST_GROWTH = 4  # weights hardly shrink: what grows more is no adapter


class AdapterError(JobError):
    """The adapter could not be imported."""

    code = "adapter"


def source_bytes(source: Path) -> int:
    """What the source takes on the disk, as far as it is wanted. Raises: AdapterError where it is gone."""
    files = [source / name for name in WANTED] if source.is_dir() else [source]
    if not source.exists():
        raise AdapterError(f"{source} is gone.", advice="Put it back, or upload a zip of it.")
    return sum(file.lstat().st_size for file in files if os.path.lexists(file))


def unpack(source: Path, target: Path, check_stop: Callable[[], None] = lambda: None) -> None:
    """Fill the empty folder `target` from a zip or a folder. Raises: AdapterError; OSError of a full disk."""
    if source.is_dir():
        _copy_folder(source, target, check_stop)
        return
    try:
        with zipfile.ZipFile(source) as archive:
            root = _find_root(archive)
            for info, name in _chosen(archive, root, source.stat().st_size):
                _extract(archive, info, target / name, check_stop)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, UnicodeError) as error:
        advice = "Pack the adapter's folder as an ordinary zip, without a password."
        raise AdapterError(f"The file is not a zip that can be read: {error}", advice=advice) from error


def _copy_folder(source: Path, target: Path, check_stop: Callable[[], None]) -> None:
    """The files that an adapter needs, however late somebody puts a link in the place of one."""
    folder = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
    try:
        names = set(os.listdir(folder))
        if CONFIG not in names:
            raise AdapterError(f"{source} holds no {CONFIG}.", advice="Name the folder that save_pretrained wrote.")
        refuse_pickles(names)
        for name in sorted(WANTED & names):
            _copy(folder, name, target / name, check_stop)
    finally:
        os.close(folder)


def _copy(folder: int, name: str, target: Path, check_stop: Callable[[], None]) -> None:
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        advice = "Copy the folder with its links followed (cp -rL) and import the copy."
        raise AdapterError(f"{name} is a link, which is not followed.", advice=advice) from error
    with os.fdopen(descriptor, "rb") as source, target.open("xb") as out:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise AdapterError(f"{name} is no plain file.")
        if name != WEIGHTS and found.st_size > _MOST_SMALL_BYTES:
            raise AdapterError(f"{name} has {found.st_size:,} bytes; of an adapter it has a few.")
        while chunk := source.read(_CHUNK_BYTES):
            check_stop()
            out.write(chunk)


def _find_root(archive: zipfile.ZipFile) -> PurePosixPath:
    """The folder within the zip that holds the adapter. Raises: AdapterError, also for names that lead out of it."""
    infos = archive.infolist()
    if len(infos) > _MOST_FILES:
        raise AdapterError(f"The zip holds {len(infos):,} files; an adapter has a dozen.")
    for info in infos:
        _refuse_odd(info)
    roots = {PurePosixPath(i.filename).parent for i in infos if PurePosixPath(i.filename).name == CONFIG}
    if len(roots) != 1:
        told = "no" if not roots else f"{len(roots)} files named"
        raise AdapterError(
            f"The zip holds {told} {CONFIG}.", advice="Pack the folder that peft's save_pretrained wrote."
        )
    return roots.pop()


def _refuse_odd(info: zipfile.ZipInfo) -> None:
    name, kind = info.filename, stat.S_IFMT(info.external_attr >> 16)
    path = PurePosixPath(name)
    outside = path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or ":" in path.parts[0:1]
    if outside or info.orig_filename != name:
        raise AdapterError(f"The zip names a file outside its folder: {info.orig_filename!r:.200}.")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise AdapterError(f"The zip holds a link or a device: {name!r:.200}.")
    if info.flag_bits & 1:
        raise AdapterError("The zip is encrypted.", advice="Pack it without a password.")


def _chosen(archive: zipfile.ZipFile, root: PurePosixPath, zip_bytes: int) -> Iterator[tuple[zipfile.ZipInfo, str]]:
    """What is taken, by its name. Raises: AdapterError for a bomb, and where the weights are pickled or missing."""
    here = {PurePosixPath(i.filename).name: i for i in archive.infolist() if PurePosixPath(i.filename).parent == root}
    refuse_pickles(here)
    for name in sorted(WANTED & here.keys()):
        info = here[name]
        limit = _MOST_GROWTH * zip_bytes if name == WEIGHTS else _MOST_SMALL_BYTES
        if info.file_size > limit:
            raise AdapterError(f"{name} would grow to {info.file_size:,} bytes from a zip of {zip_bytes:,}.")
        yield info, name


def refuse_pickles(names: dict[str, zipfile.ZipInfo] | set[str]) -> None:
    """Raises: AdapterError where there are no safetensors."""
    if WEIGHTS in names:
        return
    pickles = sorted(name for name in names if name.endswith(_PICKLES))
    if pickles:
        raise AdapterError(
            f"The weights are pickled ({pickles[0]}), which can run code when they are read.",
            advice="Save the adapter with peft's save_pretrained(…, safe_serialization=True).",
        )
    raise AdapterError(f"There is no {WEIGHTS} beside {CONFIG}.", advice="Pack the whole folder of the adapter.")


def _extract(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, check_stop: Callable[[], None]) -> None:
    """What the zip says of the size is a claim: what comes beyond it ends the import. Raises: AdapterError."""
    left = info.file_size
    with archive.open(info) as source, target.open("xb") as out:
        while chunk := source.read(_CHUNK_BYTES):
            check_stop()
            left -= len(chunk)
            if left < 0:
                raise AdapterError(f"{target.name} is longer than the zip says.")
            out.write(chunk)
