"""The images of THINGS-EEG2 as published, but few and small.

Training: folders `00001_aardvark` of ten images each, event code i = (concept - 1) * 10 + within.
Test: one image in each folder, event code = number of the folder.
"""

from pathlib import Path

import numpy as np
from PIL import Image

TRAIN_CONCEPTS = ("00001_aardvark", "00002_abacus", "00003_accordion")
TEST_CONCEPTS = ("00001_aircraft_carrier", "00002_antelope", "00003_backscratcher", "00004_ball")
TRAIN_FILES = tuple(
    (folder, f"{folder[6:]}_{number:02d}{letter}.jpg")
    for folder in TRAIN_CONCEPTS
    for number, letter in zip(range(1, 11), "bsnbsnbsnb", strict=True)
)
TEST_FILES = tuple(
    (folder, f"{folder[6:]}_{number:02d}s.jpg")
    for folder, number in zip(TEST_CONCEPTS, (6, 2, 8, 5), strict=True)
)
TRAIN = tuple(name.removesuffix(".jpg") for _, name in TRAIN_FILES)
"""Image of each event code, from 1 on."""
TEST = tuple(name.removesuffix(".jpg") for _, name in TEST_FILES)


def write_images(folder: Path, training: str = "training_images") -> Path:
    """The images as they come out of their zips; UBP calls the first folder `train_images`."""
    for kind, files in ((training, TRAIN_FILES), ("test_images", TEST_FILES)):
        for number, (concept, name) in enumerate(files):
            (folder / kind / concept).mkdir(parents=True, exist_ok=True)
            pixels = np.full((8, 8, 3), number * 7 % 256, np.uint8)
            Image.fromarray(pixels).save(folder / kind / concept / name)
    return folder


def write_metadata(folder: Path) -> Path:
    """image_metadata.npy: np.save of a dict, so a pickle in an object array."""
    lists = {"train": TRAIN_FILES, "test": TEST_FILES}
    table = {f"{kind}_img_concepts": [c for c, _ in files] for kind, files in lists.items()}
    table |= {f"{kind}_img_files": [name for _, name in files] for kind, files in lists.items()}
    np.save(folder / "image_metadata.npy", table)  # type: ignore[arg-type]
    return folder / "image_metadata.npy"
