"""`config`: the settings of a session as a TOML file to begin with, or their JSON schema."""

import json
from typing import Annotated

from hvf_core.options import Asked, Flag, with_settings
from hvf_core.settings import schema
from hvf_core.toml import to_toml
from stream.pipeline.wire.config import SessionSettings


@with_settings(SessionSettings, without=tuple(SessionSettings.model_fields))
def config(
    asked: Asked[SessionSettings],
    as_schema: Annotated[bool, Flag("--schema", help="Print the JSON schema")] = False,
) -> None:
    """Prints all settings as TOML, each with its help; what nobody set is a comment.

    Example: python run_realtime.py config > session.toml
    """
    text = to_toml(asked.settings())
    print(json.dumps(schema(SessionSettings), indent=2) if as_schema else text.rstrip())
