"""An export's folder as a repository on the hub; a new repository is private until its owner says otherwise."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import HFValidationError, HTTPError
from huggingface_hub.utils import validate_repo_id

from ..errors import ExportError


def check(repo: str) -> None:
    """Raise ExportError, before anything is written, for a name that is none or a hub that must not be asked."""
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ExportError(f"is no name of a repository ({error})", where=repo, do="Give owner/name.") from error
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        raise ExportError(
            "cannot be pushed to: HF_HUB_OFFLINE is set", where=repo, do="Unset it, or leave --push-to-hub away."
        )


def push(folder: Path, repo: str, *, public: bool = False) -> str:
    """Upload a written export; the answer is where it is to be seen. Raises ExportError; the folder stays."""
    again = f"The export is whole at {folder}; give it to: hf upload {repo} {folder}"
    try:
        api = huggingface_hub.HfApi()
        api.create_repo(repo, private=not public, exist_ok=True)
        api.upload_folder(folder_path=str(folder), repo_id=repo, commit_message="Export of a stamina-diffusion studio")
    except (HTTPError, OSError) as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ExportError(f"could not be pushed to: {what}", where=repo, do=again) from error
    return f"{huggingface_hub.constants.ENDPOINT}/{repo}"
