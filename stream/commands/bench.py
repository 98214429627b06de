"""`bench`: what is measured here, each with a reference in the same run."""

from difflib import get_close_matches
from importlib import import_module
from typing import Annotated

import typer

from hvf_core.options import LIVE, app_of, run_app
from hvf_core.problem import WrongUsage

BENCHES = {
    "live": ("live.run", "the certificate: how late a session answers here, and what may be run"),
    "search": (
        "search.run",
        "how long galleries of any size take to be searched, and what is found",
    ),
    "decoder-latency": (
        "decoder_latency",
        "how long an answer takes after the last slice of a trial",
    ),
    "painter-isolation": (
        "beside.painter",
        "whether decoding takes longer while a painter works",
    ),
    "clients": ("beside.clients", "whether a session answers later with 20 clients on its bus"),
    "pages": ("beside.pages", "whether a session answers later with ten pages of it open"),
    "peers": (
        "peers.table",
        "mne-lsl, ezmsg, a plain pylsl loop and a session, on the same streams",
    ),
    "endurance": (
        "endurance.run",
        "whether thousands of fast trials lose nothing, and nothing grows",
    ),
    "soak": ("faults.soak", "whether a long session keeps them while faults come at random"),
    "gpu": ("gpu.run", "what a CUDA card gives, beside what its chip can do at most"),
    "faults": ("faults.table", "whether a session keeps its promises under faults of every kind"),
}
"""By their names: the module of `stream.bench` that has its `main`, and what it measures."""
CERTIFICATE = "live"
"""What is measured where no name is given."""


def bench(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="NAME [OPTIONS]")] = None,
) -> None:
    """Certifies how late answers are here; NAME measures search, faults and more.

    Example: python run_realtime.py bench --minutes 20
    """
    name, *options = arguments or [CERTIFICATE]
    if name.startswith("-") and name != "--help":
        name, options = CERTIFICATE, [name, *options]
    program = f"{LIVE} bench"
    if name == "--help":
        width = max(map(len, BENCHES))
        print(f"Usage: {program} [NAME] [OPTIONS]; NAME --help has the options of each\n")
        print(*(f"  {name:{width}}  {what}" for name, (_, what) in BENCHES.items()), sep="\n")
        return
    if name not in BENCHES:
        near = get_close_matches(name, BENCHES, 1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise WrongUsage(f"'{name}' is no benchmark; {hint}there are {', '.join(BENCHES)}")
    module = import_module(f"stream.bench.{BENCHES[name][0]}")
    run_app(app_of("", module.main), f"{program} {name}", options)


AS_THEY_ARE = {"ignore_unknown_options": True, "help_option_names": []}
"""How click hands over options that are those of the benchmark, `--help` too."""
