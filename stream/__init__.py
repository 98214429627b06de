"""Streams: from the cap to a trial (acquire), from a file (sources), to an answer (pipeline)."""
