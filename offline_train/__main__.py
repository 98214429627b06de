"""The commands that produce what the live part loads: `python -m offline_train --help`."""

import typer

from decoder.problem import one_sentence
from offline_train import (
    bundle_commands,
    prior_commands,
    reconstruction_commands,
    training_commands,
)

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Produces the models of the live system: prepare, mbp, gallery, then evaluate; and prior, "
    "for those that paint.",
)
app.add_typer(training_commands.app)
app.add_typer(prior_commands.app)
app.add_typer(bundle_commands.app)
app.add_typer(reconstruction_commands.app)


def main() -> None:
    """Runs a command; a person's mistake ends in one sentence."""
    with one_sentence():
        app(prog_name="python -m offline_train")


if __name__ == "__main__":
    main()
