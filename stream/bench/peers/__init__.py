"""`bench peers`: this program beside others' on the same streams, clean and under faults."""
