"""The tiny backbone's pretraining: phantoms, autoencoder, text encoder, UNet, resulting folder.

Phantoms are kept in shards, so that drawing more never redraws what is there.
"""

import copy
import json
import logging
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from didgen.backbone.handle import Backbone
from didgen.backbone.sampling import sample
from didgen.data.classes import CLASSES
from didgen.data.phantoms import cohort, render, spread_centers
from didgen.runtime.files import (
    atomic_path,
    read_json,
    write_json,
    write_png,
    write_text,
)
from didgen.runtime.outputs import output_folder
from didgen.runtime.progress import track
from didgen.settings.pretrain_tiny import Settings
from didgen.tiny.architecture import TinyShape, build
from didgen.tiny.autoencoder import refine_decoder, tile, train_autoencoder
from didgen.tiny.diffusion import (
    PREFIX,
    PromptedLatents,
    caption_latents,
    denoiser_loss,
    embed_prompts,
    encode_images,
    scaling_factor,
    train_text_encoder,
)
from didgen.tiny.phase import Averages, Phase, in_parallel, train_phase
from didgen.training.processes import joined

LOGGER = logging.getLogger(__name__)
DECODER_BATCH = 8
PREVIEW_EVERY = 1000
PREVIEW_COLUMNS = 6
PREVIEW_STEPS = 12
PREVIEW_GUIDANCE = 4.0
# image uint8 (H, W, 3), mask bool (H, W), diagnosis code -> caption, caption of the mirror image
Captioner = Callable[[np.ndarray, np.ndarray, str], tuple[str, str]]


@dataclass(frozen=True)
class Recipe:
    """A pretraining: its settings, and what only tests change.

    start: a tiny backbone whose autoencoder is kept and from whose UNet training goes on.
    deadline: as in `Phase`. shard: phantoms drawn together.
    prediction_type: v-prediction, as in Stable Diffusion 2.1: a short training with epsilon leaves
    color casts, because at high noise a small error in the noise is a large one in the image.
    """

    settings: Settings
    start: Path | None = None
    deadline: float | None = None
    batch_size: int = 8
    text_batch_size: int = 128
    prediction_type: str = "v_prediction"
    shape: TinyShape = field(default_factory=TinyShape)
    shard: int = 256

    def phase(self, steps: int, **options: Any) -> Phase:
        """A phase of this many steps, up to the deadline."""
        return Phase(steps, deadline=self.deadline, report_to=self.settings.report_to, **options)


def pretrain(
    recipe: Recipe,
    captioner: Captioner,
    features: nn.Module,
    out: Path,
    work: Path,
    record: dict[str, Any],
) -> None:
    """Run the phases that are not done yet and write the fp16 folder `out`.

    `features` are those of `refine_decoder`. `work` keeps phantoms, states, logs, previews and the
    latest export; `record` is saved beside the weights as `config.json`.
    Raises: OutOfTime, with the state saved, at the deadline; TrainingStopped likewise; ValueError
    for a `work` folder of another recipe, or a start of another shape; BackboneError for a start
    that can't be opened.
    """
    settings = recipe.settings
    backbone = begin(recipe)
    claim(work, recipe)

    def draw(count: int, seed: int) -> PhantomSet:
        return draw_phantoms(
            work / "phantoms",
            count,
            backbone.image_size,
            seed,
            captioner,
            settings.workers,
            recipe.shard,
        )

    held_out = draw(recipe.shard, settings.seed + 1)
    phantoms = draw(settings.images, settings.seed)
    LOGGER.info("%d phantoms are drawn", len(phantoms.images))
    if recipe.start is None:
        LOGGER.info("training the autoencoder")
        train_autoencoder(
            backbone.vae,
            phantoms.images,
            held_out.images,
            recipe.phase(settings.vae_steps, lr=3e-3, ema=0.998),
            work / "autoencoder",
            settings.seed,
            batch_size=16,
        )
        refine(backbone, features, phantoms, held_out, recipe, work)
    data = prompt_latents(backbone, phantoms, recipe, work)
    LOGGER.info("training the UNet")
    given = (backbone, data, held_out, recipe, out, work, record)
    in_parallel(settings.workers, train_denoiser, *given)


def claim(work: Path, recipe: Recipe) -> None:
    """Note in `work` which recipe is trained there, or compare: states of two must not mix.

    Raises: ValueError where the folder holds another recipe's states, or files without a note.
    """
    settings = recipe.settings.model_dump(include=set(Settings.model_fields))
    wanted = {**settings, **asdict(recipe), "deadline": None, "minutes_limit": None}
    del wanted["settings"], wanted["report_to"]
    if recipe.start is not None:
        wanted |= begun_from(recipe.start)
    # As it comes back from the file: tuples are lists there.
    wanted = json.loads(json.dumps(wanted))
    note = work / "recipe.json"
    if note.exists():
        previous = read_json(note)
        previous = previous if isinstance(previous, dict) else {}
        changed = sorted(key for key in wanted if previous.get(key) != wanted[key])
        if changed:
            what = ", ".join(
                f"{key} {previous.get(key)} instead of {wanted[key]}" for key in changed
            )
            raise ValueError(
                f"{work} holds a training of another recipe: found {what}; give another work folder"
            )
    elif files := [path for path in work.rglob("*") if not path.is_dir()]:
        raise ValueError(
            f"{work}: found {len(files)} files, such as {min(files)}, but no recipe.json of a "
            "pretraining, so they may be yours; give another work folder"
        )
    write_json(note, wanted)


def begun_from(start: Path) -> dict[str, Any]:
    """What notes say of a start: its checksum; autoencoder and decoder are not trained again."""
    return {"start": Backbone.load(start).checksum(), "vae_steps": None, "decoder_steps": None}


def begin(recipe: Recipe) -> Backbone:
    """An untrained backbone, or with autoencoder and UNet of the recipe's `start`.

    Raises: ValueError for a start of another shape or prediction type.
    """
    backbone = build(recipe.shape, recipe.settings.seed, recipe.prediction_type)
    if recipe.start is None:
        return backbone
    start = Backbone.load(recipe.start)
    wanted, actual = ({n: p.shape for n, p in b.unet.named_parameters()} for b in (backbone, start))
    if actual != wanted or start.image_size != backbone.image_size:
        raise ValueError(
            f"{recipe.start} is no tiny backbone of {backbone.image_size} px, its UNet has other "
            "weights: start from a folder that pretrain-tiny wrote, or from none"
        )
    if start.prediction_type != recipe.prediction_type:
        raise ValueError(
            f"{recipe.start} predicts {start.prediction_type}, expected {recipe.prediction_type}: "
            "start from a folder that pretrain-tiny wrote, or from none"
        )
    return replace(backbone, vae=start.vae, unet=start.unet.requires_grad_(True))


@dataclass(frozen=True)
class PhantomSet:
    """Phantoms in memory.

    Shapes: images uint8 (N, H, W, 3), masks bool (N, H, W), labels (N,) str, captions (N, 2) str:
    the caption of the image and that of its mirror image.
    """

    images: np.ndarray
    masks: np.ndarray
    labels: np.ndarray
    captions: np.ndarray


def draw_phantoms(
    folder: Path,
    count: int,
    size: int,
    seed: int,
    captioner: Captioner,
    workers: int,
    shard: int,
) -> PhantomSet:
    """At least `count` phantoms, equally many of each class, `size` px, in whole shards."""
    shards = range(-(-count // shard))
    paths = [folder / f"placed_{size}_{seed}_{k:03d}.npz" for k in shards]
    missing = [(path, k) for path, k in zip(paths, shards, strict=True) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    if workers == 1:
        for path, k in track(missing, label="shards of phantoms"):
            draw_shard(path, k, shard, size, seed, captioner)
    elif missing:
        # Forked children of a process with torch's threads can hang.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            jobs = [
                pool.submit(draw_shard, path, k, shard, size, seed, captioner)
                for path, k in missing
            ]
            for job in track(jobs, label="shards of phantoms"):
                job.result()
    parts = [np.load(path) for path in paths]
    names = ("images", "masks", "labels", "captions")
    return PhantomSet(**{name: np.concatenate([part[name] for part in parts]) for name in names})


def draw_shard(
    path: Path, number: int, count: int, size: int, seed: int, captioner: Captioner
) -> None:
    """Draw and describe one shard, a cohort of its own, and write it atomically.

    In every second phantom the lesion lies anywhere.
    """
    own_seed = seed * 10_000 + number
    specs = cohort(count, seed=own_seed)
    centers = spread_centers(count, own_seed)
    # In a clinic's photographs lesions lie in the middle; words of place need others too.
    phantoms = [
        render(spec, size, center if k % 2 else None)
        for k, (spec, center) in enumerate(zip(specs, centers, strict=True))
    ]
    captions = [captioner(item.image, item.mask, item.label) for item in phantoms]
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(
            stream,
            images=np.stack([item.image for item in phantoms]),
            masks=np.stack([item.mask for item in phantoms]),
            labels=np.array([item.label for item in phantoms]),
            captions=np.array(captions),
        )


def prompt_latents(
    backbone: Backbone, phantoms: PhantomSet, recipe: Recipe, work: Path
) -> PromptedLatents:
    """Encode the phantoms, train the text encoder in place and embed what the UNet is to read."""
    settings = recipe.settings
    mean, std = encode_images(backbone, phantoms.images, work / "latents.safetensors")
    backbone.vae.register_to_config(scaling_factor=scaling_factor(mean, std))
    factor = backbone.vae.config.scaling_factor
    LOGGER.info("scaling factor %.4f; training the text encoder", factor)
    captions = captions_of(phantoms, settings.prompts, settings.seed)
    data = caption_latents(backbone, mean, std, captions)
    phase = recipe.phase(settings.text_steps, lr=1e-3, ema=0.99, every=50)
    train_text_encoder(backbone, data, phase, recipe.text_batch_size, work / "text", settings.seed)
    return embed_prompts(backbone, data, batch_size=64)


def captions_of(phantoms: PhantomSet, prompts: str, seed: int) -> np.ndarray:
    """The captions (N, 2) to learn from, or those of a control.

    "attributes": each image's own. "shuffled": those of another image of its class, the same words
    without what they say. "diagnosis": no such words; the model then answers to them by chance.
    """
    if prompts == "diagnosis":
        return np.array([[name_diagnosis(code)] * 2 for code in phantoms.labels])
    captions = phantoms.captions.copy()
    if prompts == "shuffled":
        rng = np.random.default_rng(seed)
        for code in np.unique(phantoms.labels):
            rows = np.flatnonzero(phantoms.labels == code)
            captions[rows] = captions[rng.permutation(rows)]
    return captions


def name_diagnosis(code: str) -> str:
    """A caption of the diagnosis alone, e.g. "A melanoma."."""
    phrase = CLASSES[code].phrase
    return f"{'An' if phrase[0] in 'aeiou' else 'A'} {phrase}."


def refine(
    backbone: Backbone,
    features: nn.Module,
    phantoms: PhantomSet,
    held_out: PhantomSet,
    recipe: Recipe,
    work: Path,
) -> None:
    """Refine the decoder in place, in parallel; its state in `work` is what comes back."""
    settings = recipe.settings
    phase = recipe.phase(settings.decoder_steps, lr=1e-3, ema=0.995)
    given = (backbone.vae, features, phantoms.images, held_out.images, phase, work / "decoder")
    batches = (settings.seed, DECODER_BATCH)
    in_parallel(settings.workers, refine_decoder, *given, *batches)
    if settings.workers > 1:
        # The other processes trained copies: load what they saved, there is no step left to do.
        refine_decoder(*given, *batches)


def train_denoiser(
    backbone: Backbone,
    data: PromptedLatents,
    held_out: PhantomSet,
    recipe: Recipe,
    out: Path,
    work: Path,
    record: dict[str, Any],
) -> None:
    """Train the UNet, with previews and exports every 1000 steps; write `out`."""
    settings = recipe.settings
    phase = recipe.phase(settings.unet_steps, lr=5e-4, warmup=200, final_lr=0.05, ema=0.9985)

    def evaluate(step: int, averages: Averages) -> None:
        averaged = with_weights(backbone, averages)
        export(averaged, work / "export", work, {**record, "unet_steps_done": step})
        preview(averaged, held_out, work, step)

    def evaluation_due(step: int) -> bool:
        due = step % PREVIEW_EVERY == 0 or step == settings.unet_steps
        return due and not samples_file(work, step).exists()

    with joined(cpu=True) as team:

        def loss_of(step: int) -> Tensor:
            return denoiser_loss(
                backbone, backbone.unet, data, recipe.batch_size, settings.seed, step, team
            )

        averages = train_phase(
            backbone.unet, loss_of, phase, work / "denoiser", team, evaluate, evaluation_due
        )
        if team.rank == 0:
            export(with_weights(backbone, averages), out, work, record)


def samples_file(work: Path, step: int) -> Path:
    """The sheet of samples drawn after a step."""
    return work / f"samples_{step:06d}.png"


def with_weights(backbone: Backbone, averages: Averages) -> Backbone:
    """A copy of the backbone whose UNet has the averaged weights."""
    unet = copy.deepcopy(backbone.unet)
    unet.load_state_dict(averages)
    return replace(backbone, unet=unet.eval())


def preview(backbone: Backbone, held_out: PhantomSet, work: Path, step: int) -> None:
    """A sheet of samples, a row a class, from captions of held-out phantoms; the captions too."""
    rows, lines = [], []
    columns = min(PREVIEW_COLUMNS, *(int((held_out.labels == code).sum()) for code in CLASSES))
    for number, code in enumerate(CLASSES):
        captions = held_out.captions[held_out.labels == code][:columns, 0].tolist()
        prompts = [f"{PREFIX} {caption}" for caption in captions]
        seeds = [1000 * number + column for column in range(len(prompts))]
        latents = sample(
            backbone,
            prompts,
            seeds,
            steps=PREVIEW_STEPS,
            guidance_scale=PREVIEW_GUIDANCE,
            scheduler="dpm++",
        )
        with torch.no_grad():
            rows.append(backbone.decode(latents))
        lines += [f"{code} {column}: {caption}" for column, caption in enumerate(captions)]
    write_png(samples_file(work, step), tile(torch.cat(rows), columns))
    write_text(work / "samples.txt", "\n".join(lines) + "\n")


def export(backbone: Backbone, out: Path, work: Path, record: dict[str, Any]) -> None:
    """Write the backbone as fp16 safetensors with its recipe and training logs, atomically."""
    halved = Backbone(
        vae=copy.deepcopy(backbone.vae).half(),
        text_encoder=copy.deepcopy(backbone.text_encoder).half(),
        tokenizer=backbone.tokenizer,
        unet=copy.deepcopy(backbone.unet).half(),
        scheduler=backbone.scheduler,
    )
    with output_folder(out, "pretrain-tiny") as folder:
        halved.save(folder)
        # transformers opens weights in the type that the config names, diffusers in fp32: with
        # "float16" here, a pipeline opened without a type would mix the two and fail.
        config = folder / "text_encoder" / "config.json"
        write_json(config, {**read_json(config), "dtype": "float32"})
        for phase in ("autoencoder", "decoder", "text", "denoiser"):
            log = work / phase / "log.csv"
            if log.exists():
                shutil.copy(log, folder / f"{phase}.csv")
        quality = work / "decoder" / "quality.json"
        if quality.exists():
            shutil.copy(quality, folder / "quality.json")
        write_json(folder / "config.json", record)
