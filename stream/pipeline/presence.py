"""How a session says on its machine that it runs, to programs that look for one."""

import json
import os
from contextlib import suppress
from datetime import datetime

from stream import client
from stream.pipeline.wire.config import SessionConfig
from stream.pipeline.wire.keys import LAB

try:
    import fcntl
except ImportError:  # Windows does not remove a file that is open, which will do
    _HAS_LOCKS = False
else:
    _HAS_LOCKS = True
_SIZE = 2**14  # bytes, of every file: one is written anew at once, and never seen in part


class Presence:
    """A small file that is locked while the session runs; there is no secret in it.

    Attributes:
        trouble: why other programs do not find the session, in a sentence, or "".
    """

    def __init__(self, config: SessionConfig, title: str):
        self._path, self.trouble = client.PLACE / f"{config.session}.json", ""
        self._said = {
            "session": config.session,
            "folder": str(config.folder),
            "title": title,
            "started": f"{datetime.now():%Y-%m-%d %H:%M:%S}",
            "endpoints": config.endpoints.model_dump(include={*LAB}),
        }
        # One that is not locked is taken for a dead session's: it gets its name with its lock.
        begun = self._path.with_suffix(".new") if _HAS_LOCKS else self._path
        try:
            client.PLACE.mkdir(mode=0o700, exist_ok=True)
            status = client.PLACE.lstat()
            if _HAS_LOCKS and (status.st_uid != os.getuid() or status.st_mode & 0o077):
                raise PermissionError(0, "others can enter it", str(client.PLACE))
            self._file = begun.open("wb", buffering=0)
            self.say(ready=False)
            if _HAS_LOCKS:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                begun.replace(self._path)
        except OSError as error:
            self.trouble = (
                f"programs that look for a session do not find this one ({error.strerror}: "
                f"'{error.filename}'): give them its folder"
            )

    def say(self, *, ready: bool) -> None:
        """Says how it is by now."""
        if not self.trouble:
            self._file.seek(0)
            self._file.write(json.dumps(self._said | {"ready": ready}).encode().ljust(_SIZE))

    def end(self) -> None:
        """Takes it away."""
        if not self.trouble:
            self._file.close()
            with suppress(OSError):
                self._path.unlink()
