"""An exported folder as a repository of the Hugging Face Hub: verified first, then uploaded as one commit.

The token is the one that `hf auth login` or HF_TOKEN gave to huggingface_hub; it is never read here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kdsearch.core.errors import ConflictError, StorageError, UsageError
from kdsearch.export.manifest import MANIFEST, check_manifest
from kdsearch.export.recheck import verify_folder

OWN = (".gitattributes",)
"""What the Hub itself puts into a new repository."""


def check_repo(repo: str) -> None:
    """Before anything is spent: the name can be one, somebody is logged in, nothing else is in the way."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UsageError(
            f"{repo!r} is no name of a repository: {error}", hint="owner/name, or name for your own"
        ) from error
    with _explained(repo):
        api = HfApi()
        api.whoami()
        try:
            files = api.list_repo_files(repo)
        except RepositoryNotFoundError:
            return
    if MANIFEST not in files and set(files) - set(OWN):
        raise ConflictError(
            f"{repo} holds something that is not an exported student", hint="choose another repository"
        )


def push(folder: Path, repo: str, *, private: bool = False) -> str:
    """Upload a folder that verifies; what an earlier export left there and this one lacks is removed.

    Returns the commit's address. Raises VerificationError if the folder is not what was exported.
    """
    manifest = check_manifest(folder)
    for _ in verify_folder(folder):
        pass
    check_repo(repo)
    from huggingface_hub import HfApi

    with _explained(repo):
        api = HfApi()
        # None leaves it to the owner's default, which may be private
        api.create_repo(repo, private=private or None, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            commit_message=f"Trial {manifest.trial} of study {manifest.study}, exported by kdsearch",
            delete_patterns="*",
        )
    return str(commit.commit_url)


@contextmanager
def _explained(repo: str) -> Iterator[None]:
    """What the Hub and the network say, as a sentence and without the token."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalTokenNotFoundError

    try:
        yield
    except LocalTokenNotFoundError as error:
        raise UsageError("nobody is logged in to the Hub", hint="`hf auth login`, or set HF_TOKEN") from error
    except HfHubHTTPError as error:
        status = _status(error)
        if status in (401, 403):
            raise UsageError(
                f"the Hub refuses {repo} (HTTP {status})", hint="`hf auth login` with a token that may write"
            ) from error
        raise StorageError(
            f"the Hub does not take {repo} (HTTP {status})", hint="the folder is complete: push it later"
        ) from error
    except (HTTPError, OSError) as error:
        raise StorageError(
            f"the Hub cannot be reached: {type(error).__name__}", hint="the folder is complete: push it later"
        ) from error


def _status(error: Any) -> int | None:
    return None if error.response is None else int(error.response.status_code)
