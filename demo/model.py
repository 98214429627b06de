"""Where the demo's model is; it is made on the first run, and again when what makes it changes."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from demo.settings import DemoSettings
from hvf_core.artifact import cache_folder

_ROOT = Path(__file__).parents[1]
# Everything that the model depends on.
_SOURCES = ("demo/**/*.py", "demo/assets/**/*", "hvf_core/**/*.py", "decoder/**/*.py")
_SOURCES += ("index/encoders/**/*.py", "offline_train/**/*.py")
_SOURCES += ("stream/acquire/**/*.py", "stream/sources/**/*.py")


@dataclass(frozen=True)
class DemoModel:
    """Folders of the demo's bundle and gallery."""

    bundle: Path
    gallery: Path


def ready_model(console: Console) -> DemoModel:
    """The demo's model, made now where this machine has none that today's code would make."""
    folder = cache_folder() / f"demo-{_fingerprint()}"
    model = DemoModel(folder / "bundle", folder / "gallery")
    if not (model.gallery / "gallery.json").exists():
        console.print(
            "First run: the simulated subject is recorded and its brain model trained "
            "(about two minutes, once)."
        )
        from demo.training import make_model  # here: it takes seconds to import

        make_model(folder, DemoSettings(), console)
    return model


def _fingerprint() -> str:
    digest = hashlib.sha256()
    for path in sorted({path for pattern in _SOURCES for path in _ROOT.glob(pattern)}):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
