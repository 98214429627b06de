"""The one remedy for a CPU build of torch beside a CUDA build of torchvision.

PyPI has no CPU build of torchvision. Its compiled operators then do not load, and `import
torchvision` (hence open_clip and the pipelines of diffusers) fails with `operator torchvision::nms
does not exist`. Declaring the two operators is enough for everything that does not call them.
"""

import importlib.util

import torch

_library: torch.library.Library | None = None


def declare_missing_ops() -> None:
    """Declares torchvision's `nms` and `qnms` where its own build could not; else does nothing.

    Call it before the first import of open_clip or diffusers. It is safe to call again.
    """
    global _library
    if _library is not None or torch.version.cuda or not importlib.util.find_spec("torchvision"):
        return
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        _library = torch.library.Library("torchvision", "DEF")  # kept alive: it owns the operators
        _library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
