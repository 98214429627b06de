"""fetch and empty-prompt: what has to be downloaded, once, before it can be used without a net."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from offline_train.commands.options import Base


def fetch(
    what: Annotated[str, typer.Argument(help="A bundle: OWNER/NAME on huggingface.co")],
    to: Annotated[Path, typer.Option("--to", "--out", help="Folder to write")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit")] = None,
) -> None:
    """Downloads a bundle from the Hugging Face hub and verifies it; never a pickle.

    Example: python -m offline_train fetch my-lab/sub-01 --to bundle
    """
    from offline_train.brain.hub import fetch_bundle

    console = Console()
    fetched = fetch_bundle(what, revision, to)
    console.print(f"bundle in '{to}': {len(fetched.manifest.channels)} channels")
    console.print(f"next: python -m offline_train gallery --bundle {to} ...")


def empty_prompt(base: Base = "sdxl-base") -> None:
    """Encodes the empty prompt of a diffusion model, once, so that painting needs no text encoder.

    Example: python -m offline_train empty-prompt --base sdxl-base
    """
    from decoder.painting.spec import read_base_spec
    from offline_train.prior.empty_prompt import encode_empty_prompt

    console = Console()
    for name, shape in encode_empty_prompt(read_base_spec(base)).items():
        console.print(f"{name}: {shape}", highlight=False)
