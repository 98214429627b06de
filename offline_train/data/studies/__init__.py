"""The data sets, one file each: what they hold, and how it is read. See `study`."""
