"""Orders that change a session, as changes of its config, in every process that has one."""

from pathlib import Path

from hvf_core.settings import with_value
from stream.pipeline.wire.config import SessionConfig


def changed(config: SessionConfig, verb: str, argument: str) -> SessionConfig:
    """The config after `gallery PATH` or `set PATH VALUE`; other orders change nothing of it.

    Raises:
        Problem: there is no such setting, it cannot change, or not to this value.
    """
    if verb == "gallery":
        return config.model_copy(update={"gallery": Path(argument)})
    if verb == "set":
        path, _, value = argument.partition(" ")
        return with_value(config, path, value)
    return config
