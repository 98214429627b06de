"""gallery load-milvus: a gallery's embeddings into a collection of a Milvus server."""

from pathlib import Path
from typing import Annotated

import typer

from hvf_core.options import onward
from hvf_core.problem import WrongUsage
from offline_train.commands.gallery.choice import Folder
from offline_train.commands.gallery.index import UNCALIBRATED, asked_of
from offline_train.commands.options import bar, console

N_SIMULATED = 100


def load_milvus(
    gallery: Folder,
    uri: Annotated[str, typer.Option(help="Of the server, as http://server:19530")],
    collection: Annotated[
        str | None, typer.Option(help="Its name; made of the gallery's checksum by default")
    ] = None,
    index: Annotated[str, typer.Option(help="On the server: hnsw, ivf-sq8 or flat")] = "hnsw",
    queries: Annotated[
        Path | None, typer.Option(help="Folder of a trial set that was not trained on")
    ] = None,
    bundle: Annotated[Path | None, typer.Option(help="Folder of the bundle")] = None,
) -> None:
    """Loads a gallery into a collection of a Milvus server, for sessions with --search milvus.

    Ended, or of a gallery that has grown, it goes on with the rows that are not there yet. Then it
    measures what the server finds: with held-out trials (--queries, --bundle), or with image
    embeddings and noise, which is called simulated. A token is read from MILVUS_TOKEN.

    Example: python -m offline_train gallery load-milvus g --uri http://server:19530
    """
    from index.gallery import load_gallery
    from index.search.measure import simulated_queries
    from index.search.milvus.indexes import INDEXES
    from index.search.milvus.kept import collection_of, folder_of
    from index.search.milvus.load import load, measure
    from index.search.milvus.server import CALL_S, Server
    from index.search.milvus.settings import uri_of

    uri_of("--uri", uri)
    if index not in INDEXES:
        raise WrongUsage(f"there is no index '{index}' here: give {', '.join(INDEXES)}")
    opened = load_gallery(gallery)  # what is loaded is verified: a server cannot be asked for it
    folder_of(opened)
    asked = asked_of(queries, bundle, gallery) or simulated_queries(
        opened.embeddings, opened.rows, UNCALIBRATED, N_SIMULATED
    )
    server = Server(uri, CALL_S)
    name = collection or collection_of(opened)
    n = opened.n_rows
    with bar("loading") as tell:
        made_of = load(
            opened, server, name, index, lambda done, doing: tell(done, n, f"{name}: {doing}")
        )
    there = f"the collection '{name}' at {uri}, with the index '{made_of.index}'"
    console.print(f"{n} images are in {there}", soft_wrap=True)
    with console.status("measuring what the server finds"):
        found = measure(opened, server, name, made_of, asked)
    console.print(
        f"with {found.n_queries} {found.queries} queries {found.recall_5:.1%} of the best five "
        f"were found, log p was off by {found.log_p_error:.3f}, and an answer took "
        f"{found.p50_ms:.1f} ms (p99 {found.p99_ms:.1f})",
        soft_wrap=True,
    )
    more = ("--gallery", gallery, "--search", "milvus", "--milvus-uri", uri)
    console.print(onward("live", *more, bundle=bundle), soft_wrap=True)
