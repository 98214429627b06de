"""Units of voltage as streams and files name them, in lower case."""

MICROVOLTS_PER = {
    **dict.fromkeys(("microvolts", "microvolt", "uv", "µv", "μv"), 1.0),
    **dict.fromkeys(("volts", "volt", "v"), 1e6),
    **dict.fromkeys(("millivolts", "millivolt", "mv"), 1e3),
    **dict.fromkeys(("nanovolts", "nanovolt", "nv"), 1e-3),
}
