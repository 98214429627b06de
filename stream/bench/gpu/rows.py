"""What a run consists of: sections, in which there are rows; nothing here imports torch."""

from collections.abc import Mapping
from typing import Any

Row = dict[str, Any]
"""What was measured, or why it was not, ready for JSON."""
SECTIONS: Mapping[str, str] = {
    "limits": "stream.bench.gpu.limits:cells",
    "answers": "stream.bench.gpu.answers:cells",
    "galleries": "stream.bench.gpu.galleries:cells",
    "painting": "stream.bench.gpu.painting:cells",
    "together": "stream.bench.gpu.together:cells",
    "brain-training": "stream.bench.gpu.training:brain_cells",
    "prior-training": "stream.bench.gpu.training:prior_cells",
}
"""From what matters most: where time runs out, the last are left out."""
