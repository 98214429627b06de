"""share: bundles on the Hugging Face hub; and the empty prompt, which is asked for once."""

from pathlib import Path
from typing import Annotated

import typer

from hvf_core.options import Flag
from offline_train.commands.options import TRAIN, Base, console


def share(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle")],
    repo: Annotated[str, typer.Argument(help="OWNER/NAME on huggingface.co")],
    public: Annotated[bool, Flag("--public", help="For everybody to see")] = False,
    message: Annotated[str, typer.Option(help="Of the commit")] = "A bundle of hvf-live",
) -> None:
    """Uploads a bundle to the Hugging Face hub; log in first with `hf auth login`.

    Example: python -m offline_train share bundle my-lab/sub-01
    """
    from offline_train.hub.bundles import push_bundle

    console.print("bundle.json names the command and the files that it was trained with")
    console.print(push_bundle(bundle, repo, private=not public, message=message))
    console.print(f"next: {TRAIN} fetch {repo} --to FOLDER", soft_wrap=True)


def empty_prompt(base: Base = "sdxl-base") -> None:
    """Encodes the empty prompt of a diffusion model, once, so that painting needs no text encoder.

    Example: python -m offline_train empty-prompt --base sdxl-base
    """
    from decoder.painting.spec import read_base_spec
    from offline_train.prior.empty_prompt import encode_empty_prompt

    for name, shape in encode_empty_prompt(read_base_spec(base)).items():
        console.print(f"{name}: {shape}", highlight=False)
