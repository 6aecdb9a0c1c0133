"""From the order for a photograph to its pixels, mask and truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import ndimage

from .artifacts import choose_artifacts, dark_corners, draw_bubbles, draw_ink, draw_ruler
from .canvas import Pose
from .lesion import Lesion, draw_lesion, paint_lesion
from .palette import lab_to_srgb, typology_angle
from .skin import draw_hair, draw_patient, draw_skin
from .types import MINIMUM_SIZE, Phantom, PhantomSpec, PhantomTruth, check_class


def render(
    spec: PhantomSpec, size: int = 128, center: tuple[float, float] | None = None
) -> Phantom:
    """Draw the photograph of a spec at size x size pixels.

    The scene is defined in field units: another size shows the same scene, finer or coarser.
    Only the sensor's noise is drawn per pixel. `center`: where the lesion's middle lies, (x, y) in
    0..1, the lesion cut off where it reaches beyond the edge; None: as the spec's seed decides.

    Raises: ValueError for an unknown class, a size below 32 pixels or a center outside the image.
    """
    check_class(spec.label)
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < MINIMUM_SIZE:
        raise ValueError(f"size is {size!r}: expected a whole number of at least {MINIMUM_SIZE} px")
    seeds = np.random.SeedSequence(spec.photo_seed).spawn(5)
    pose_rng, light_rng, hair_rng, artifact_rng, sensor_rng = map(np.random.default_rng, seeds)
    patient = draw_patient(spec.patient_seed)
    lesion = draw_lesion(spec.label, spec.lesion_seed)
    pose = draw_pose(lesion, pose_rng)
    if center is not None:
        if not all(0.0 <= value <= 1.0 for value in center):
            raise ValueError(f"center is {center}: expected (x, y) within 0..1, inside the image")
        pose = replace(pose, x=center[0], y=center[1])

    lab = draw_skin(patient, light_rng, size)
    mask, colors = paint_lesion(lesion, pose, lab, patient.lab[0])
    _light(lab, light_rng)
    skin = lab[~mask] if not mask.all() else lab.reshape(-1, 3)
    ita = typology_angle(float(np.median(skin[:, 0])), float(np.median(skin[:, 2])))

    artifacts = choose_artifacts(artifact_rng)
    if "ink" in artifacts:
        draw_ink(lab, artifact_rng)
    hair = draw_hair(patient, hair_rng, size)
    if hair is not None:
        alpha = 0.9 * hair[..., None]
        lab += alpha * (np.array(patient.hair_lab, dtype=np.float32) - lab)
    if "gel bubbles" in artifacts:
        draw_bubbles(lab, artifact_rng)
    if "ruler" in artifacts:
        draw_ruler(lab, artifact_rng)
    rgb = lab_to_srgb(lab)
    if "dark corners" in artifacts:
        rgb *= dark_corners(artifact_rng, size)[..., None]
    image = _sensor(rgb, sensor_rng)

    rows, columns = np.nonzero(mask)
    truth = PhantomTruth(
        area_share=float(mask.mean()),
        center=(float((columns.mean() + 0.5) / size), float((rows.mean() + 0.5) / size)),
        ita=ita,
        hair=patient.hair,
        artifacts=artifacts,
        colors=colors,
        shape=lesion.outline.shape(),
        asymmetric=lesion.asymmetric,
    )
    return Phantom(image, mask, spec.label, truth)


def draw_pose(lesion: Lesion, rng: np.random.Generator) -> Pose:
    """Where a photograph shows the lesion: mostly whole and near the middle, now and then cut."""
    zoom, turn = float(rng.uniform(0.9, 1.1)), float(rng.uniform(0, 2 * np.pi))
    offset = np.clip(rng.normal(0, 0.12, 2), -0.25, 0.25)
    if rng.random() < 0.35:
        offset = rng.uniform(-0.25, 0.25, 2)
    cut = rng.random() < 0.06
    x, y = Pose(0.0, 0.0, zoom, turn).to_image(*lesion.outline.polygon().T)
    if not cut:
        for k, extent in enumerate((x, y)):
            low, high = -0.49 - extent.min(), 0.49 - extent.max()
            offset[k] = np.clip(offset[k], low, high) if low < high else 0.5 * (low + high)
    return Pose(float(0.5 + offset[0]), float(0.5 + offset[1]), zoom, turn)


def _light(lab: np.ndarray, rng: np.random.Generator) -> None:
    """Exposure, white balance and a smooth gradient of light, in place on CIELAB."""
    size = lab.shape[0]
    grid = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    angle, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.12)
    plane = grid[None] * np.float32(np.cos(angle)) + grid[:, None] * np.float32(np.sin(angle))
    fall = rng.uniform(0.0, 0.18) * (grid[None] ** 2 + grid[:, None] ** 2 - 0.1)
    exposure = rng.normal(1.0, 0.015)
    lab[..., 0] *= exposure + slope * plane - fall
    lab[..., 1] += rng.normal(0.0, 1.5)
    lab[..., 2] += rng.normal(0.0, 0.8)


def _sensor(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur of the lens and noise of the sensor; gamma-coded 0..1 to uint8."""
    size = rgb.shape[0]
    sigma = size / 128 * rng.uniform(0.3, 0.5)
    rgb = ndimage.gaussian_filter(rgb, (sigma, sigma, 0), truncate=2.5)
    rgb += rng.uniform(0.004, 0.011) * rng.standard_normal(rgb.shape, dtype=np.float32)
    return (np.clip(rgb, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
