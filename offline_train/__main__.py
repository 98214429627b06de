"""What produces all that the live part loads: `python -m offline_train --help`."""

import os

from hvf_core import ctrl_c_ends_it


def main() -> None:
    """Runs a command; exits as `run_realtime.main` does."""
    ctrl_c_ends_it()
    from hvf_core.problem import one_sentence

    # Before torch is loaded, whose threads else spin between its small steps: half of the time of a
    # training where another program wants the core, and a tenth of it where none does.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with one_sentence():
        from hvf_core.options import TRAIN, run_app
        from offline_train.commands.app import app

        run_app(app, TRAIN)


if __name__ == "__main__":
    main()
