"""Every LSL stream of the tests is in a session of its own, on this machine only."""

import os
import tempfile
import uuid
from pathlib import Path

_CONFIG = Path(tempfile.mkdtemp(prefix="hvf-tests-")) / "lsl_api.cfg"
_CONFIG.write_text(
    f"[lab]\nSessionID = hvf-tests-{uuid.uuid4()}\n"
    "[multicast]\nResolveScope = machine\n"
    "[log]\nlevel = -2\n"
)
# Before any import of pylsl, which reads it once; child processes inherit it.
os.environ["LSLAPICFG"] = str(_CONFIG)
