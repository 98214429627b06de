"""share: uploads a bundle to the Hugging Face hub."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def share(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle")],
    repo: Annotated[str, typer.Argument(help="OWNER/NAME on huggingface.co")],
    public: Annotated[bool, typer.Option("--public", help="For everybody to see")] = False,
    message: Annotated[str, typer.Option(help="Of the commit")] = "A bundle of hvf-live",
) -> None:
    """Uploads a bundle to the Hugging Face hub; log in first with `hf auth login`.

    Example: python -m offline_train share bundle my-lab/sub-01
    """
    from offline_train.brain.hub import push_bundle

    console = Console()
    console.print("bundle.json names the command and the files that it was trained with")
    console.print(push_bundle(bundle, repo, private=not public, message=message))
    console.print(f"next: python -m offline_train fetch {repo} --to FOLDER")
