"""Images: what encodes them, the gallery that holds them, the search that finds them."""
