"""Search: the images nearest to an embedding."""
