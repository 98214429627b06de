"""The live system: `python run_realtime.py` runs the demo, `--help` tells what else there is."""

from hvf_core import ctrl_c_ends_it


def main() -> None:
    """Runs a command.

    Exits with 0 when everything was decoded or accounted for, 1 when something failed or was lost,
    2 on wrong usage, and after Ctrl-C or another signal with 128 more than its number: 130.
    """
    ctrl_c_ends_it()
    from hvf_core.problem import one_sentence

    with one_sentence():
        from stream.commands.app import run_command

        run_command()


if __name__ == "__main__":
    main()
