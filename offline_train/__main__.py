"""The commands that produce what the live part loads: `python -m offline_train --help`."""

import typer

from hvf_core.problem import one_sentence
from offline_train.commands import bundle, paintings, prior, training

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Produces the models of the live system: prepare, mbp, gallery, then evaluate; and prior, "
    "for those that paint.",
)
app.add_typer(training.app)
app.add_typer(prior.app)
app.add_typer(bundle.app)
app.add_typer(paintings.app)


def main() -> None:
    """Runs a command; a person's mistake ends in one sentence."""
    with one_sentence():
        app(prog_name="python -m offline_train")


if __name__ == "__main__":
    main()
