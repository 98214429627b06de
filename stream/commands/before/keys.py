"""`keys`: those with which programs of other hosts are let in."""

from datetime import datetime
from typing import Annotated, Literal

import typer


def keys(
    what: Annotated[
        Literal["show", "make", "renew"],
        typer.Argument(help="Say where they are; make them; or make others in their place"),
    ] = "show",
) -> None:
    """Keeps the keys of this lab, which let other hosts into a session with --listen.

    Who has a copy of the file can follow and steer sessions. After `renew` no copy lets anybody
    into a session that is started from then on.

    Example: python run_realtime.py keys make
    """
    from hvf_core.problem import Problem
    from stream.pipeline.wire.keys import lab_keys, make_lab_keys, refuse_useless_keys

    file = lab_keys()
    before = file.read_bytes() if file.is_file() else b""
    if what == "show" and not before:
        raise Problem(f"there are no keys in '{file.parent}': `keys make` makes them")
    if what != "show":
        make_lab_keys(anew=what == "renew")
    refuse_useless_keys()
    made = f"{datetime.fromtimestamp(file.stat().st_mtime):%Y-%m-%d %H:%M}"
    is_new = file.read_bytes() != before
    told = "are new" if is_new else "were there already"
    print(f"the keys of this lab {told}, made {made}; only this user can read them: {file}")
    if is_new and before:
        print("copies of the ones before let nobody into new sessions; end those that run still")
    print("next: copy this file, and none beside it, to the other host; there, in Python:")
    print(f'connect("tcp://HOST:5757", keys="{file.name}")')
