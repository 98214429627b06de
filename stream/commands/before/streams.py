"""`streams`: which LSL streams there are."""

from typing import Annotated

import typer

from hvf_core.text import printable


def streams(wait: Annotated[float, typer.Option(help="For streams to answer, s")] = 1.0) -> None:
    """Lists the LSL streams that answer."""
    from stream.acquire.lsl import list_streams  # here: it loads liblsl

    found = [printable(str(stream)) for stream in list_streams(wait)]
    print(*found or [f"no LSL stream answered within {wait:g} s"], sep="\n")
