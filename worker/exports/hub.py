"""An upload job: an artifact's files as one commit of a hub repository. Runs in the child; loads no torch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile

from app.core.secrets import SET_HUB_TOKEN
from worker.context import JobContext
from worker.exports.hub_card import CARD, make_card
from worker.exports.hub_errors import HubUploadError, NotSent, explained
from worker.exports.hub_files import Outgoing, Sent, differences

logger = logging.getLogger(__name__)

_EXISTS = 409
_STREAMS = 4  # files that are sent beside each other


def run_upload(context: JobContext) -> dict[str, Any]:
    """Send an artifact to the hub; returns {repo, url, commit, private, files, bytes, already_there}.

    Payload: repo, private, existing, kind, folder, files [{path, bytes, sha256}], name, base_name, base_hub_id. The hub
    shows nothing before the commit, which is the last that is sent. Raises: HubUploadError, JobCancelled.
    """
    constants.HF_HUB_DISABLE_XET = True  # by plain HTTP each byte is counted, and a cancel takes effect in mid-file
    payload, sent = context.payload, Sent(context)
    if get_token() is None:
        raise HubUploadError("There is no hub token, and nothing is uploaded without one.", advice=SET_HUB_TOKEN)
    with ExitStack() as opened:
        files = _open(payload, sent, opened)
        upload = _Upload(payload["repo"], payload["private"], files)
        commit, already_there = upload.run(sent, existing=payload["existing"])
    url = f"{constants.ENDPOINT}/{payload['repo']}"
    logger.info("%d files are on the hub: %s at commit %s", len(files), url, commit)
    return {
        "repo": payload["repo"],
        "url": url,
        "commit": commit,
        "private": payload["private"],
        "files": len(files),
        "bytes": sum(file.bytes for file in files),
        "already_there": already_there,
    }


def _open(payload: dict[str, Any], sent: Sent, opened: ExitStack) -> list[Outgoing]:
    """Every file, compared with its hash. Raises: HubUploadError where one is not as it was saved."""
    root = Path(payload["folder"])
    sent.enter("verify", sum(each["bytes"] for each in payload["files"]))
    files = [opened.enter_context(Outgoing.of(root, each, sent)) for each in payload["files"] if each["path"] != CARD]
    card = make_card(payload, (root / CARD).read_text(encoding="utf-8") if (root / CARD).is_file() else None)
    logger.info("%d files are as they were saved", len(files))
    return [*files, opened.enter_context(Outgoing.text(CARD, card))]


class _Upload:
    """To one repository, whose state is told with every failure."""

    def __init__(self, repo: str, private: bool, files: Sequence[Outgoing]) -> None:
        self._repo, self._private, self._files = repo, private, files
        self._api = HfApi()

    def run(self, sent: Sent, *, existing: bool) -> tuple[str, bool]:
        """Returns the commit, and whether all was there already. Raises: HubUploadError, JobCancelled."""
        sent.enter("upload", sum(file.bytes for file in self._files))
        made = self._create()
        state = NotSent.CREATED if made else NotSent.UNCHANGED
        with explained(self._repo, state):
            if not made:
                there = self._look(existing)
                if there is not None:
                    return there, True
            operations: list[Any] = [file.operation for file in self._files]
            self._api.preupload_lfs_files(self._repo, operations, num_threads=_STREAMS, free_memory=False)
            sent.enter("commit")
        with explained(self._repo, NotSent.UNCLEAR):
            message = f"Upload by Loradeck: {len(self._files)} files"
            commit = self._api.create_commit(self._repo, operations, commit_message=message).oid
            self._confirm(commit)
        return commit, False

    def _create(self) -> bool:
        """Whether it was made; it may be there already, and somebody else's. Raises: HubUploadError."""
        with explained(self._repo, NotSent.UNCHANGED):
            try:
                self._api.create_repo(self._repo, private=self._private)
            except HfHubHTTPError as error:
                if error.response.status_code != _EXISTS:
                    raise
                return False
        return True

    def _look(self, existing: bool) -> str | None:
        """What a repository holds that is there already: the commit where that is all of ours, None where it may be
        added to. Raises: HubUploadError."""
        try:
            info = self._api.model_info(self._repo)
        except RepositoryNotFoundError as error:
            raise HubUploadError(
                f"{self._repo} exists, and this token may not see it: it is somebody else's.",
                advice="Choose another name, or store a token that may write there.",
            ) from error
        if info.private is not None and bool(info.private) != self._private:
            now, asked = ("private", "public") if info.private else ("public", "private")
            raise HubUploadError(
                f"{self._repo} exists and is {now}, and a {asked} upload was asked for. Nothing was sent.",
                advice=f"Ask for a {now} upload, or change the repository on its hub page, or choose another name.",
            )
        there = self._tree(info.sha)
        if info.sha and not differences(self._files, there):
            logger.info("%s holds all these files already", self._repo)
            return str(info.sha)
        if set(there) - {".gitattributes"} and not existing:
            raise HubUploadError(
                f"{self._repo} exists and holds {len(there):,} files. Nothing was sent.",
                advice="Choose another name, or ask for a further commit (--existing): files of the same name are "
                "replaced, others stay.",
            )
        return None

    def _confirm(self, commit: str) -> None:
        """Raises: HubUploadError where what the hub lists is not what was sent."""
        odd = differences(self._files, self._tree(commit))
        if odd:
            raise HubUploadError(
                f"The hub lists other files than were sent to {self._repo}: {', '.join(odd[:3])}.",
                advice=f"Look at commit {commit[:7]} on its hub page, and upload again.",
            )

    def _tree(self, commit: str | None) -> dict[str, RepoFile]:
        entries = self._api.list_repo_tree(self._repo, recursive=True, revision=commit) if commit else ()
        return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}
