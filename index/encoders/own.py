"""Image encoders of your own: a function from a spec to `Parts`, in any module."""

from pkgutil import resolve_name

from hvf_core.problem import Problem
from index.encoders.parts import Parts
from index.encoders.spec import EncoderSpec


def load(spec: EncoderSpec) -> Parts:
    """What the function `spec.source` gives; raises as it does."""
    try:
        function = resolve_name(spec.source)
    except (ImportError, AttributeError, ValueError) as fault:
        raise Problem(
            f"the function '{spec.source}' of image encoder '{spec.name}' cannot be imported "
            f"({fault}): correct MODULE:FUNCTION, or name the folder of the module in PYTHONPATH"
        ) from None
    parts: Parts = function(spec)
    return parts._replace(settings={"function": spec.source, **parts.settings})
