"""What produces all that the live part loads: `python -m offline_train --help`."""

from hvf_core.problem import one_sentence


def main() -> None:
    """Runs a command; exits as `run_realtime.main` does."""
    with one_sentence():
        from hvf_core.options import TRAIN, run_app
        from offline_train.commands.app import app

        run_app(app, TRAIN)


if __name__ == "__main__":
    main()
