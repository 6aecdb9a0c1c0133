"""From the order for a photograph to its pixels, mask and truth: skin, lesion, hair, artifacts."""

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from didgen.data.phantoms.canvas import (
    Pose,
    curves,
    image_noise,
    lab_to_srgb,
    smoothstep,
    stroke_coverage,
    typology_angle,
)
from didgen.data.phantoms.cohort import (
    MINIMUM_SIZE,
    Phantom,
    PhantomSpec,
    PhantomTruth,
    check_class,
)
from didgen.data.phantoms.lesion import Lesion, draw_lesion, paint_lesion


def render(spec: PhantomSpec, size: int, center: tuple[float, float] | None = None) -> Phantom:
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


@dataclass(frozen=True)
class Patient:
    """What all photographs of a patient share: skin CIELAB, hairiness, hair color and width."""

    lab: tuple[float, float, float]
    hair: str
    hair_lab: tuple[float, float, float]
    hair_width: float


def draw_patient(seed: int) -> Patient:
    """The patient of a seed; typology angles run from about 60 down to -40 degrees."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, 3]))
    light = rng.random() < 0.65
    angle = rng.uniform(25, 60) if light else rng.uniform(-40, 25)
    b = rng.uniform(13.5, 19.0)
    lightness = 50.0 + b * np.tan(np.radians(angle))
    a = rng.uniform(9.0, 20.0) if light else rng.uniform(11.0, 16.0)
    hair = str(rng.choice(["none", "some", "dense"], p=[0.64, 0.27, 0.09]))
    dark = rng.uniform(8, 26) if light else rng.uniform(4, 10)
    color = (float(dark), float(rng.uniform(1, 6)), float(0.3 * dark))
    return Patient((lightness, a, b), hair, color, float(rng.uniform(0.006, 0.012)))


def draw_skin(patient: Patient, rng: np.random.Generator, size: int) -> np.ndarray:
    """Bare skin, CIELAB float32 (size, size, 3): mottled, with faint furrows and pores."""
    lab = np.empty((size, size, 3), dtype=np.float32)
    broad, blotch = image_noise(rng, size, 0.35), image_noise(rng, size, 0.09)
    furrow, pore = image_noise(rng, size, 0.045), image_noise(rng, size, 0.02)
    contrast = 0.5 + patient.lab[0] / 140.0
    lab[..., 0] = patient.lab[0] + contrast * (
        0.9 * broad + 1.1 * blotch - 2.2 * np.exp(-5.0 * furrow * furrow) + 1.5 * pore
    )
    lab[..., 1] = patient.lab[1] + 0.7 * broad + 1.0 * blotch + 0.6 * pore
    lab[..., 2] = patient.lab[2] - 0.5 * broad + 0.6 * blotch
    return lab


def draw_hair(patient: Patient, rng: np.random.Generator, size: int) -> np.ndarray | None:
    """Coverage 0..1 (size, size) of the patient's hair in this photograph; None without hair."""
    if patient.hair == "none":
        return None
    n = int(rng.integers(5, 13) if patient.hair == "some" else rng.integers(22, 38))
    flow = rng.uniform(0, 2 * np.pi)
    middle = rng.uniform(0.05, 0.95, (n, 2))
    angle = flow + rng.normal(0, 0.45, n)
    length = rng.uniform(0.35, 1.1, n)
    bend = rng.normal(0, 0.7, n)
    start = middle - 0.5 * length[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    steps = int(2.2 * size)
    x, y = curves(start, angle - 0.5 * bend, length, bend, steps)
    taper = 1.0 - 0.5 * np.linspace(0, 1, steps)[None] ** 2
    width = patient.hair_width * rng.uniform(0.7, 1.35, (n, 1)) * taper
    return stroke_coverage(x, y, width, size)


ARTIFACTS: tuple[str, ...] = ("ruler", "ink", "gel bubbles", "dark corners")

_CHANCE = {"ruler": 0.12, "ink": 0.10, "gel bubbles": 0.14, "dark corners": 0.18}
_INK_LAB = np.array([34.0, 32.0, -46.0], dtype=np.float32)


def choose_artifacts(rng: np.random.Generator) -> tuple[str, ...]:
    """The artifacts of a photograph, each by its own chance."""
    return tuple(name for name in ARTIFACTS if rng.random() < _CHANCE[name])


def draw_bubbles(lab: np.ndarray, rng: np.random.Generator) -> None:
    """Gel bubbles, in place on CIELAB (size, size, 3): bright rim, dark inner edge, a glint."""
    size = lab.shape[0]
    grid = (np.arange(size, dtype=np.float32) + 0.5) / size
    heart = rng.uniform(0.1, 0.9, 2)
    for _ in range(int(rng.integers(3, 9))):
        radius = float(0.022 + 0.075 * rng.random() ** 2)
        x0, y0 = np.clip(heart + rng.normal(0, 0.14, 2), 0.04, 0.96)
        reach = 1.4 * radius
        rows = slice(*np.searchsorted(grid, [y0 - reach, y0 + reach]))
        columns = slice(*np.searchsorted(grid, [x0 - reach, x0 + reach]))
        dx, dy = (grid[None, columns] - x0) / radius, (grid[rows, None] - y0) / radius
        r = np.hypot(dx, dy)
        thick = max(0.2, 0.6 / (radius * size))
        rim = smoothstep(np.abs(r - 1.0), thick, 0.0)
        inner = smoothstep(np.abs(r - 0.78), 0.22, 0.0)
        glint = smoothstep(np.hypot(dx + 0.35, dy + 0.38), 0.32, 0.1)
        bright = 15.0 * rim + 22.0 * glint - 5.0 * inner
        patch = lab[rows, columns]
        patch[..., 0] = np.clip(patch[..., 0] + bright, 0, 97)
        patch[..., 1:] *= 1.0 - 0.5 * np.maximum(rim, glint)[..., None]


def draw_ruler(lab: np.ndarray, rng: np.random.Generator) -> None:
    """Ruler ticks along one side, in place on CIELAB (size, size, 3); each fifth is long."""
    size = lab.shape[0]
    side = int(rng.integers(4))
    gap, base = rng.uniform(0.04, 0.06), rng.uniform(0.0, 0.02)
    first, last = sorted(rng.uniform((-0.1, 0.7), (0.3, 1.1)))
    at = np.arange(first, last, gap)
    length = np.where(np.arange(len(at)) % 5 == 0, 0.09, 0.05)
    t = np.linspace(0, 1, int(0.2 * size) + 3)
    along = np.repeat(at[:, None], len(t), axis=1) + rng.uniform(-0.05, 0.05) * t
    across = base + length[:, None] * t
    if side in (1, 3):
        across = 1.0 - across
    x, y = (along, across) if side < 2 else (across, along)
    cover = stroke_coverage(x, y, np.full(x.shape, 0.0085), size)
    _over(lab, cover * 0.85, np.array([14.0, 1.0, -2.0], dtype=np.float32))


def draw_ink(lab: np.ndarray, rng: np.random.Generator) -> None:
    """Violet pen marks near the rim, in place on CIELAB (size, size, 3): a line or some dots."""
    size = lab.shape[0]
    angle = rng.uniform(0, 2 * np.pi)
    heart = 0.5 + rng.uniform(0.36, 0.46) * np.array([np.cos(angle), np.sin(angle)])
    n = int(rng.integers(1, 4))
    along = angle + np.pi / 2 + rng.normal(0, 0.2, n)
    length = rng.uniform(0.12, 0.45, n) if rng.random() < 0.7 else np.full(n, 0.02)
    bend = rng.normal(0.5, 0.5, n)
    offset = rng.normal(0, 0.05, (n, 2))
    start = heart + offset - 0.5 * length[:, None] * np.stack([np.cos(along), np.sin(along)], 1)
    steps = int(1.2 * size)
    x, y = curves(start, along - 0.5 * bend, length, bend, steps)
    width = np.broadcast_to(rng.uniform(0.022, 0.042, (n, 1)), x.shape)
    cover = stroke_coverage(x, y, width, size)
    grain = np.clip(0.72 + 0.16 * image_noise(rng, size, 0.03), 0.35, 0.95)
    _over(lab, cover * grain, _INK_LAB)


def dark_corners(rng: np.random.Generator, size: int) -> np.ndarray:
    """Light 0..1 (size, size) left by the round field of the dermatoscope, sharp or soft."""
    grid = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    x0, y0 = rng.normal(0, 0.015, 2)
    r = np.hypot(grid[None] - np.float32(x0), grid[:, None] - np.float32(y0))
    radius = rng.uniform(0.52, 0.6)
    soft = rng.uniform(0.015, 0.03) if rng.random() < 0.6 else rng.uniform(0.1, 0.18)
    return smoothstep(r, radius + soft, radius - soft) * 0.97 + 0.03


def _over(lab: np.ndarray, alpha: np.ndarray, color: np.ndarray) -> None:
    """Blend one color over the image in place where alpha (size, size) is not zero."""
    hit = alpha > 0
    lab[hit] += alpha[hit][:, None] * (color - lab[hit])
