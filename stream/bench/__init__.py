"""Benchmarks: each measures with a reference in the same run."""
