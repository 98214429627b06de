"""The metadata of MNE's epochs as rows, with pandas or without."""

from typing import Any

import mne


def rows_of(epochs: mne.BaseEpochs) -> list[dict[str, Any]]:
    """MNE has a DataFrame where there is pandas, else a list of dictionaries."""
    table = epochs.metadata
    return [dict(row) for row in (table if isinstance(table, list) else table.to_dict("records"))]
