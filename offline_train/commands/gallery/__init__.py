"""gallery: the images that are told apart, made, changed and looked at."""

from typing import Any

from typer.core import TyperGroup

from hvf_core.options import app_of
from hvf_core.problem import Problem
from offline_train.commands.gallery.build import add, build
from offline_train.commands.gallery.change import compact, merge, remove, subset
from offline_train.commands.gallery.index import index
from offline_train.commands.gallery.look import info, like, sheet
from offline_train.commands.gallery.milvus import load_milvus


class _Built(TyperGroup):
    """Without the name of a command, `gallery` builds one; a disk that fails is a sentence."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0].startswith("-") and args[0] not in self.get_help_option_names(ctx):
            args = ["build", *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except OSError as error:
            if error.filename is None:  # no file of ours, as a terminal that is gone
                raise
            raise Problem(
                f"'{error.filename}' cannot be read or written ({error.strerror}): name another "
                "place, or allow it"
            ) from error


gallery = app_of(
    "Makes a gallery of images, the ones that are told apart, changes it and shows it. `build` may "
    "be left out: gallery --bundle b --images folder --encoders e --out g.",
    *(build, add, remove, subset, merge, compact, info, sheet, like, index, load_milvus),
)
gallery.info.cls = _Built
gallery.info.name = "gallery"
