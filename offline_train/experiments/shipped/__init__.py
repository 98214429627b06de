"""The experiments that come with the program: a TOML file each."""
