"""What is used of braindecode, which no environment of these tests has: its uniform signature."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

PATCH = 10
KNOWN = ("Cz", "Pz", "O1", "Oz", "O2", "P7", "P8", "PO7")


class Labram(nn.Module):
    """As the one of that name: patches of a length, channels by name, a part for each patch."""

    def __init__(
        self,
        n_outputs: int,
        n_chans: int,
        chs_info: list[dict[str, str]],
        n_times: int,
        sfreq: float,
        embed_dim: int = 4,
    ) -> None:
        super().__init__()
        self.patch = nn.Linear(PATCH, embed_dim)
        self.position_embedding = nn.Parameter(torch.randn(1, len(KNOWN), embed_dim))
        self.temporal_embedding = nn.Parameter(torch.randn(1, n_times // PATCH, embed_dim))
        self.final_layer = nn.Linear(embed_dim, n_outputs)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Labram":
        return cls(**config)

    def forward(self, x: Tensor, ch_names: list[str]) -> Tensor:
        n, channels, times = x.shape
        patches = self.patch(x.reshape(n, channels, times // PATCH, PATCH))
        places = self.position_embedding[:, [KNOWN.index(name) for name in ch_names]]
        tokens = patches + places[:, :, None] + self.temporal_embedding[:, None]
        return self.final_layer(torch.tanh(tokens).mean((1, 2)))


def install(patch: pytest.MonkeyPatch) -> None:
    """Puts it in the place of braindecode."""
    package, models = ModuleType("braindecode"), ModuleType("braindecode.models")
    models.Labram = package.models = Labram  # type: ignore[attr-defined]
    patch.setitem(sys.modules, "braindecode", package)
    patch.setitem(sys.modules, "braindecode.models", models)


def published(folder: Path, n_times: int = 40, sfreq: float = 100.0, **options: Any) -> Path:
    """Weights of it as `save_pretrained` leaves them, of longer trials of one channel."""
    torch.manual_seed(3)
    told = {"n_outputs": 2, "n_chans": 1, "n_times": n_times, "sfreq": sfreq, "chs_info": None}
    folder.mkdir()
    save_file(Labram(**told, **options).state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(told | options | {"braindecode_version": "1"}))
    (folder / "README.md").write_text("---\nlicense: bsd-3-clause\n---\n")
    return folder
