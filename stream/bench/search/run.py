"""How long galleries of any size take to be searched, what is found, and what that takes.

`run_realtime.py bench search`: galleries of the demo world, in which the embeddings of simulated
trials are looked up one at a time. Each kind of search has a process of its own, which opens the
gallery as a session does. In every round all are asked in turn, so that they meet the same machine,
and beside them FAISS's plain `IndexFlatIP`, usearch where it is installed, a Milvus server where
one is named, and how fast memory is read. Ours, and what the server names, give the total over all
images too, the others do not. Ctrl-C leaves the lines of what was measured so far.
"""

from typing import Annotated

import typer

from hvf_core.problem import WrongUsage
from index.search.milvus.server import Server
from index.search.milvus.settings import uri_of
from stream.bench.search.names import OFFERED, ON_SERVER, USUAL


def main(
    images: Annotated[str, typer.Option(help="sizes: N,N,...")] = "200,16540,100000,1000000",
    kinds: Annotated[str, typer.Option(help=f"KIND,KIND,... of {', '.join(OFFERED)}")] = USUAL,
    queries: Annotated[int, typer.Option(min=20, max=2800, help="trials looked up")] = 1000,
    rounds: Annotated[int, typer.Option(min=1, help="in which all kinds take turns")] = 3,
    seconds: Annotated[
        float, typer.Option(min=0.1, help="at most, of each kind in a round")
    ] = 10.0,
    pictures: Annotated[
        int,
        typer.Option(min=2, help="images that are made; beyond, embeddings are drawn like theirs"),
    ] = 16540,
    usearch_up_to: Annotated[int, typer.Option(help="images of which it builds its index")] = 10**5,
    milvus_uri: Annotated[
        str | None,
        typer.Option(help=f"a Milvus server, for {'; '.join(ON_SERVER)}; the first by default"),
    ] = None,
) -> None:
    """Looks trials up in galleries of any size; one line of JSON for each size and kind."""
    asked_for = _kinds(kinds, milvus_uri)
    sizes = _sizes(images)
    from stream.bench.search.rounds import measure  # here: torch and FAISS take seconds

    measure(sizes, asked_for, queries, rounds, seconds, pictures, usearch_up_to, milvus_uri)


def _sizes(images: str) -> list[int]:
    sizes = [int(size) if size.strip().isdecimal() else 0 for size in images.split(",")]
    if not all(sizes):
        raise WrongUsage(f"--images '{images}' are no sizes: give numbers from 1 on, as 200,16540")
    return sizes


def _kinds(kinds: str, milvus_uri: str | None) -> list[str]:
    """What is measured, once it is known that it can be."""
    found = kinds.split(",")
    if unknown := set(found) - {*OFFERED}:
        raise WrongUsage(
            f"'{unknown.pop()}' is no kind of search here; there are {', '.join(OFFERED)}"
        )
    on_server = [kind for kind in found if kind in ON_SERVER]
    if milvus_uri is None:
        if on_server:
            raise WrongUsage(f"'{on_server[0]}' is asked of a server: say which by --milvus-uri")
        return found
    Server(uri_of("--milvus-uri", milvus_uri)).close()
    return found if on_server else [*found, next(iter(ON_SERVER))]
