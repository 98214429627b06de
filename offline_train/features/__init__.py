"""Features of very many images: what keeps them, where images come from, and a run over them."""
