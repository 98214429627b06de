"""What can still be read off a painting, by the demo's classifier."""

import numpy as np
import torch

from demo.shipped.image_metrics import attribute_scores
from index.encoders.classifier import SemanticNet, SemanticNetConfig
from offline_train.paintings.metrics import resized


def test_attributes_are_read_by_the_heads_of_the_classifier() -> None:
    torch.manual_seed(0)
    heads = {"shape": 3, "colour": 5}
    reader = SemanticNet(SemanticNetConfig(size_px=16, widths=(4, 6), dim=5, heads=heads)).eval()
    seen = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
    with torch.inference_mode():
        logits = reader(resized(seen, 16))
    truth = {name: of.argmax(dim=1).numpy() for name, of in logits.items()}
    wrong = truth["colour"].copy()
    wrong[:10] = (wrong[:10] + 1) % 5
    scores = attribute_scores(reader, {"shape": truth["shape"], "colour": wrong})
    assert list(scores) == ["shape (guess 0.33)", "colour (guess 0.20)"]
    assert scores["shape (guess 0.33)"](seen).tolist() == [1.0] * 40
    assert scores["colour (guess 0.20)"](seen).tolist() == [0.0] * 10 + [1.0] * 30
