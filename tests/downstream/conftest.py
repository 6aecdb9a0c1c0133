"""Small image sets on disk, with the columns of a manifest."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from didgen.data.manifest import write_manifest
from didgen.runtime.files import write_png

CODES = ("MEL", "NV")


@pytest.fixture
def image_set(tmp_path: Path) -> Callable[..., Path]:
    """Write a manifest of discs, red ones MEL and green ones NV, with exact masks."""

    def make(name: str, n: int = 8, size: int = 32, seed: int = 0, **columns: list[str]) -> Path:
        rng = np.random.default_rng(seed)
        rows, cols = np.mgrid[:size, :size]
        table = []
        for k in range(n):
            center, radius = rng.uniform(0.4, 0.6, 2) * size, rng.uniform(0.2, 0.35) * size
            disc = (rows - center[0]) ** 2 + (cols - center[1]) ** 2 < radius**2
            image = rng.integers(150, 200, (size, size, 3)).astype(np.uint8)
            image[disc] = (200, 40, 40) if k % 2 == 0 else (40, 160, 40)
            own = f"{name}_{k}"
            write_png(tmp_path / "images" / f"{own}.png", image)
            write_png(tmp_path / "masks" / f"{own}.png", disc)
            table.append({
                "id": own, "image": f"images/{own}.png", "mask": f"masks/{own}.png",
                "label": CODES[k % 2], "split": "train", "lesion_id": f"{own}_lesion",
                "patient_id": "", "source": "test", "width": size, "height": size, "sha256": "",
            })  # fmt: skip
        frame = pd.DataFrame(table).assign(**columns)
        write_manifest(frame, tmp_path / f"{name}.csv")
        return tmp_path / f"{name}.csv"

    return make
