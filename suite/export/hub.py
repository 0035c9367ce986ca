"""Exported models on the Hugging Face hub: what would be uploaded, and the upload as one commit."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from suite.data.registry import is_own
from suite.errors import InputError, WorkError, first_line
from suite.export.card import CARD, FILES, WEIGHTS, Card, read_card
from suite.store.files import file_sha256

README = "README.md"

ENDPOINT = "https://huggingface.co"

ENDPOINT_VARIABLE = "HF_ENDPOINT"  # environment variable of huggingface_hub: the address of another hub

WRITTEN = (CARD, README, "config.json", *FILES.values())  # names that exports use


@dataclass(frozen=True)
class Upload:
    """What is uploaded: files below the folder of an exported model, and the card with the license."""

    folder: Path
    repo_id: str  # "NAME" or "OWNER/NAME"
    files: dict[str, int]  # bytes by path, README.md with what is uploaded of it
    readme: str
    card: Card

    @property
    def notes(self) -> list[str]:
        """What the owner should know before others can read the files, in sentences."""
        found = [] if "\nlicense:" in self.readme.partition("\n---")[0] else ["It states no license; --license does."]
        if is_own(self.card.dataset):
            found.append(f"{CARD} and {README} name the folder of your pictures, {self.card.dataset}.")
        if others := sorted(self.files.keys() - set(WRITTEN)):
            found.append(f"Files that are no part of the export go with it: {', '.join(others)}.")
        return found


def plan(folder: Path, repo_id: str, license: str | None = None) -> Upload:
    """Read the folder and check it, without the network. Hidden files are left out.

    Raises InputError where the folder is no export or is damaged, and for a repository or a license with a wrong name.
    """
    from huggingface_hub import ModelCard
    from huggingface_hub.utils import HFValidationError, validate_repo_id
    from yaml import YAMLError

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise InputError(f"{error} Name the repository as OWNER/NAME.") from None
    if license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", license):
        raise InputError(f"--license is {license!r}; the hub names licenses as mit, apache-2.0 or cc-by-4.0.")
    card = read_card(folder)
    for name in (WEIGHTS, README):
        if not (folder / name).is_file():
            raise InputError(f"{folder} has no {name}; export the model again.")
    if file_sha256(folder / WEIGHTS) != card.sha256:
        raise InputError(f"{folder / WEIGHTS} is not the file its card describes (SHA-256 differs); export it again.")
    try:
        text = (folder / README).read_text("utf-8")
        readme = ModelCard(text)
        if license is not None:
            readme.data["license"] = license
            text = str(readme)
    except (YAMLError, ValueError, TypeError, AttributeError) as error:  # not UTF-8, or no YAML
        reason = first_line(error)
        raise InputError(f"{folder / README} has no valid metadata at its head: {reason}.") from None
    files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in _visible(folder)}
    return Upload(folder, repo_id, files | {README: len(text.encode())}, text, card)


def _visible(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def push(upload: Upload, token: str | None, *, private: bool = False) -> dict[str, Any]:
    """Create the repository where there is none, and upload the files in one commit.

    Files of an earlier export that this one lacks are removed by the same commit. The token goes into requests alone.

    Args:
        upload: see `plan`.
        token: an access token of the hub; None: the one that HF_TOKEN or a login of huggingface_hub holds.
        private: whether a new repository is private.

    Returns:
        `repo` (OWNER/NAME), `url`, `commit` (its address) and `files` (bytes by path).

    Raises:
        InputError: there is no token, the hub refuses it or what is asked for, or the repository is public and a
            private one is asked for.
        WorkError: the hub cannot be reached, or it fails.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]  # the latter of its HTTP client

    token = _checked(token or get_token())
    endpoint = os.environ.get(ENDPOINT_VARIABLE) or ENDPOINT
    api = HfApi(endpoint=endpoint, token=token)
    try:
        repo_id = api.create_repo(upload.repo_id, private=private or None, exist_ok=True).repo_id
        if private and not api.model_info(repo_id).private:
            raise InputError(
                f"{repo_id} is there already and is public; nothing was uploaded. Name another repository."
            )
        there = set(api.list_repo_files(repo_id))
        gone = sorted(there & set(WRITTEN) - upload.files.keys())
        content = {README: upload.readme.encode()}
        added = [CommitOperationAdd(name, content.get(name, upload.folder / name)) for name in upload.files]
        removed = [CommitOperationDelete(name) for name in gone]
        done = api.create_commit(repo_id, [*added, *removed], commit_message=f"Upload trial {upload.card.trial}")
    except HfHubHTTPError as error:
        raise _refused(error, upload.repo_id, token) from None
    except (HTTPError, ConnectionError) as error:  # the latter by HF_HUB_OFFLINE
        reason = first_line(error).rstrip(".")
        raise WorkError(f"The hub at {endpoint} cannot be reached: {_without(token, reason)}.") from None
    except ValueError as error:  # what is wrong with the metadata, line by line
        raise InputError(f"The hub refuses the model card: {_without(token, ' '.join(str(error).split()))}") from None
    return {"repo": repo_id, "url": f"{endpoint}/{repo_id}", "commit": done.commit_url, "files": upload.files}


def _checked(token: str | None) -> str:
    """Raises InputError, which does not quote the token."""
    token = (token or "").strip()
    if not token:
        raise InputError(
            "There is no token for the hub. Make one with the right to write on https://huggingface.co/settings/tokens "
            "and set HF_TOKEN, or log in with `hf auth login`. --dry-run needs none."
        )
    if not re.fullmatch(r"[!-~]+", token):
        raise InputError("The token for the hub has characters that no token has, such as blanks; copy it again.")
    return token


def _refused(error: Any, repo_id: str, token: str) -> InputError | WorkError:
    """What an answer of the hub means for the user."""
    status = error.response.status_code
    said = _without(token, (error.server_message or "").strip() or f"status {status}").rstrip(".")
    if status == 401:
        return InputError(f"The hub does not accept the token, or does not show {repo_id} to its owner ({said}).")
    if status == 403:
        return InputError(f"The token may not write to {repo_id} ({said}). Give it that right, or name another.")
    if status in (400, 404, 409, 413, 422):
        return InputError(f"The hub refuses the upload to {repo_id}: {said}.")
    return WorkError(f"The hub failed with status {status}: {said}. The same command tries again.")


def _without(token: str, text: str) -> str:
    return text.replace(token, "***")
