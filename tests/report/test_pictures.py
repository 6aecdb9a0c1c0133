"""Pictures: outlines worked by hand, data URIs, draws that nobody steers."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from didgen.report.pictures import embed, outline
from didgen.report.reading import BrokenResult
from didgen.report.sections.pairs import evenly
from didgen.report.sections.samples import drawn
from didgen.report.sections.training import POINTS, smoothed, thinned


def _points(path: str) -> list[tuple[float, float]]:
    return [tuple(map(float, p.split(","))) for p in re.findall(r"[\d.-]+,[\d.-]+", path)]


def test_outline_of_a_square_lies_on_its_pixels_edges() -> None:
    mask = np.zeros((10, 12), bool)
    mask[2:6, 3:9] = True
    found = outline(mask)
    xs, ys = zip(*_points(found.path), strict=True)
    assert (min(xs), max(xs), min(ys), max(ys)) == (3, 9, 2, 6)
    assert (found.width, found.height) == (12, 10)


def test_outline_closes_at_the_border_and_keeps_holes() -> None:
    full = outline(np.ones((4, 4), bool))
    xs, _ = zip(*_points(full.path), strict=True)
    assert (min(xs), max(xs)) == (0, 4)
    ring = np.ones((9, 9), bool)
    ring[3:6, 3:6] = False
    assert outline(ring).path.count("M") == 2
    assert outline(np.zeros((4, 4), bool)).path == ""
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        outline(np.zeros((4, 4, 3), bool))


def test_embedding_shrinks_and_never_enlarges(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (100, 50), (200, 30, 30)).save(path)
    small, same = embed(path, "red", side=25), embed(path, "red", side=400)
    assert (small.width, small.height, small.alt) == (50, 25, "red")
    assert (same.width, same.height) == (100, 50)
    prefix, data = same.uri.split(",")
    assert prefix == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (100, 50)
    with pytest.raises(BrokenResult, match="expected an image"):
        embed(tmp_path / "none.png", "", 10)


def test_draw_depends_on_the_names_only() -> None:
    names = [f"SYN_{i}" for i in range(50)]
    assert drawn(names, 5) == drawn(names[::-1], 5)
    assert len(set(drawn(names, 5))) == 5 and drawn(names, 5) != names[:5]


def test_even_choice_has_both_ends() -> None:
    assert evenly(11, 3) == [0, 5, 10]
    assert evenly(3, 12) == [0, 1, 2]
    assert evenly(9, 1) == [4] and evenly(9, 0) == [] and evenly(0, 4) == []


def test_smoothing_and_thinning_keep_means() -> None:
    assert smoothed([2.0] * 100) == [2.0] * 100
    ramp = [float(i) for i in range(1000)]
    assert smoothed(ramp)[500] == pytest.approx(500)
    x, y = thinned(ramp, ramp)
    assert len(x) == POINTS and sum(y) / len(y) == pytest.approx(499.5, rel=0.01)
