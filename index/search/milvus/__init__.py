"""Galleries whose index lies on a Milvus server: past what one machine's memory holds."""
