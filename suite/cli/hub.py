"""The command that publishes an exported model: push."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from suite.cli.options import Json, Quiet, path_argument


def push(
    model: Annotated[Path, path_argument(help="A folder that `export` wrote.")],
    repo_id: Annotated[str, typer.Argument(metavar="REPO_ID", help="OWNER/NAME on the hub, or NAME below your own.")],
    token: Annotated[
        str | None,
        typer.Option(
            envvar="HF_TOKEN", show_envvar=True, help="Access token; by default that of `hf auth login`. Never stored."
        ),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Create a private repository.")] = False,
    license: Annotated[
        str | None, typer.Option(help="License to state in the model card, such as mit or apache-2.0.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the files and the model card, without the network, and exit.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Upload an exported model to the Hugging Face hub, in one commit.

    \b
    Examples: mnist-suite push model ann/digits --dry-run
              HF_TOKEN=... mnist-suite push model ann/digits --license mit --private
    """
    from huggingface_hub.utils import disable_progress_bars

    from suite.cli import console
    from suite.export import hub
    from suite.store.files import dump_json

    upload = hub.plan(model, repo_id, license)
    if dry_run:
        if as_json:
            print(dump_json({"repo": repo_id, "files": upload.files, "notes": upload.notes, "card": upload.readme}))
            return
        console.out.print(f"{_total(upload.files)} would go to {repo_id}:")
        for name, size in upload.files.items():
            console.out.print(f"{size:>14,}  {name}")
        for note in upload.notes:
            console.out.print(note)
        console.out.print(f"\n{upload.readme}")
        return
    if quiet or not console.err.live:
        disable_progress_bars()
    if not quiet:
        for note in upload.notes:
            console.err.print(note)
        console.err.print(f"uploading {_total(upload.files)} to {repo_id}")
    done = hub.push(upload, token, private=private)
    if as_json:
        print(dump_json(done))
    else:
        console.out.print(done["url"])


def _total(files: dict[str, int]) -> str:
    return f"{len(files)} files, {sum(files.values()) / 1e6:.2f} MB,"
