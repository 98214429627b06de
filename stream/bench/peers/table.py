"""`bench peers`: this program beside others' on one source of LSL streams, clean and under faults.

Peers take turns, in an order that is rotated by rounds: on few cores those that ran beside each
other would measure each other. With `--together` they run at the same time, on the very same
samples, for machines with cores for all. In each turn they are sent the same samples and images,
decode with the same network and gallery, and are judged by what a subscriber in another process
has: an answer's latency is from the push of the window's last sample, or of its marker where that
came later.
"""

import math
import os
import random
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
import typer

from demo.model import ready_model
from demo.stimuli import gallery_stimuli
from hvf_core.problem import WrongUsage
from hvf_core.screen import Screen
from stream.bench.machine import header, machine
from stream.bench.paths import given
from stream.bench.peers.conditions import CONDITIONS, plan
from stream.bench.peers.judge import Sums, sums
from stream.bench.peers.peers import PEERS, Peer
from stream.bench.peers.show import Round, show, write
from stream.bench.peers.source import TurnSource
from stream.bench.peers.turns import Turn, make_world, take_turn

N_WARM_UP = 10  # trials of a turn that do not count
_SEED = 0
T = TypeVar("T")


def main(
    trials: Annotated[int, typer.Option(min=5, help="That count, in a turn.")] = 60,
    rounds: Annotated[
        int, typer.Option(min=1, help="Of the condition 'clean'; the others have one.")
    ] = 3,
    rate: Annotated[float, typer.Option(min=250.0, max=2000.0, help="Hz, of the EEG.")] = 1000.0,
    soa: Annotated[float, typer.Option(min=0.05, help="From image to image, s.")] = 0.2,
    conditions: Annotated[str, typer.Option(metavar="A,B,...")] = ",".join(CONDITIONS),
    peers: Annotated[str, typer.Option(metavar="A,B,...")] = ",".join(PEERS),
    together: Annotated[
        bool, typer.Option("--together", help="All at the same time: for machines with many cores.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for JSON and CSV.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Tables as Markdown.")] = False,
) -> None:
    """Measures this program beside others' on the same streams, clean and under faults."""
    if out is not None:
        with given(out):
            out.mkdir(parents=True, exist_ok=True)
    under = _among(conditions, CONDITIONS, "condition")
    asked = _among(peers, PEERS, "peer")
    here = {name: peer for name, peer in asked.items() if not peer.missing()}
    images, model = gallery_stimuli(), ready_model()
    if N_WARM_UP + trials > len(images):
        raise WrongUsage(
            f"--trials {trials}: a turn shows each image once, of {len(images)}, {N_WARM_UP} of "
            f"them to warm up; take at most {len(images) - N_WARM_UP}, and more --rounds"
        )
    told = machine(model.bundle, model.gallery)
    versions = {
        package: number for one in here.values() for package, number in one.versions().items()
    }
    console = Screen(highlight=False)
    console.print(
        header(told), ", ".join(f"{name} {number}" for name, number in versions.items()), sep="\n"
    )
    for name in asked.keys() - here.keys():
        packages = " ".join(asked[name].missing())
        console.print(f"{name} is left out: it is not installed (pip install {packages})")
    shown = random.Random(_SEED).sample(images, N_WARM_UP + trials)
    planned = [(name, at) for name in under for at in range(rounds if name == "clean" else 1)]
    played: dict[str, list[Round]] = {}
    try:
        with tempfile.TemporaryDirectory(prefix="hvf-peers-") as base:
            folder = Path(base)
            _use_private_lsl_session(folder)
            world = make_world(f"peers-{uuid.uuid4().hex[:8]}", model, shown, soa, rate, folder)
            with TurnSource(world.streams) as source:
                for condition, number in planned:
                    what = plan(CONDITIONS[condition], N_WARM_UP, trials, soa, rate, number)
                    took: dict[str, Turn] = {}
                    for now in _groups(here, number, together):
                        at = folder / f"{condition}-{number}-{'-'.join(now)}"
                        took |= take_turn(world, source, now, CONDITIONS[condition], what, at)
                    played.setdefault(condition, []).append(took)
    finally:  # Ctrl-C leaves the rounds that all peers have had
        found = {
            condition: {name: put_together([took[name] for took in of]) for name in here}
            for condition, of in played.items()
        }
        if out is not None and played:
            more = {"machine": told, "peers": versions, "rate_hz": rate, "soa_s": soa}
            write(out, found, played, more | {"together": together})
        show(found, console, markdown)
        for line in missing(planned, played):
            console.print(line)


def missing(
    planned: Sequence[tuple[str, int]], played: Mapping[str, Sequence[Round]]
) -> Iterator[str]:
    """Says which rounds there are not, by their conditions."""
    for condition, n in Counter(condition for condition, _ in planned).items():
        if (n_played := len(played.get(condition, ()))) < n:
            yield f"incomplete: {condition} has {n_played} of {n} rounds"


def put_together(turns: Sequence[Turn]) -> "Sums | str":
    """The rounds of a peer under a condition; a sentence where it could not take part."""
    if all(turn.cannot for turn in turns):
        return turns[0].cannot
    took_part = [turn for turn in turns if not turn.cannot]
    return sums(
        [one for turn in took_part for one in turn.verdicts],
        float(np.mean([turn.cpu for turn in took_part])),
        max((turn.back_s for turn in took_part), default=math.nan),
    )


def _groups(peers: Mapping[str, Peer], number: int, together: bool) -> Iterator[Mapping[str, Peer]]:
    """Those that run at the same time, one group after the other; who begins changes by rounds."""
    names = list(peers)
    names = [*names[number % len(names) :], *names[: number % len(names)]]
    if together:
        yield {name: peers[name] for name in names}
    else:
        yield from ({name: peers[name]} for name in names)


def _among(text: str, known: Mapping[str, T], what: str) -> dict[str, T]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise WrongUsage(f"'{name}' is no {what}; there are {', '.join(known)}")
    if not names:
        raise WrongUsage(f"no {what} is named; there are {', '.join(known)}")
    return {name: known[name] for name in names}


def _use_private_lsl_session(folder: Path) -> None:
    """Keeps the streams on this machine and apart from others; before the first use of LSL."""
    path = folder / "lsl_api.cfg"
    port = 20_000 + 130 * (os.getpid() % 200)  # the usual 32 are used up where others run beside
    path.write_text(
        f"[ports]\nMulticastPort = {port}\nBasePort = {port + 1}\nPortRange = 128\n"
        # mne-lsl's liblsl, an older one, does not hear multicast of machine scope.
        f"[lab]\nSessionID = hvf-peers-{uuid.uuid4()}\nKnownPeers = {{127.0.0.1}}\n"
        "[multicast]\nResolveScope = machine\n"
        "[log]\nlevel = -2\n"
    )
    os.environ["LSLAPICFG"] = str(path)
