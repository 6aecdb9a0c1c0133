"""Single-file .safetensors checkpoints of Stable Diffusion 1.x and 2.x, opened without a network.

Such a file holds weights alone. Its configuration comes from a folder of the same name beside it
(`model.safetensors`, `model/model_index.json`, ...) where there is one, else from the packaged
ones, which are those of Stable Diffusion 1.5 and 2.1-base.
"""

import gzip
import importlib.util
import json
import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from didgen.backbone.folder import BackboneError
from didgen.backbone.tokenizer import END, START, alphabet
from didgen.settings import extras

LOGGER = logging.getLogger(__name__)
ARCHITECTURES = Path(__file__).parent / "architectures"
# One layer's weight tells the architecture by the width of the text it attends to.
_TELLTALE = "model.diffusion_model.input_blocks.{}.1.transformer_blocks.0.attn2.to_k.weight"
_INPUT = "model.diffusion_model.input_blocks.0.0.weight"
_WIDTHS = {768: "sd15", 1024: "sd21-base"}
_VOCABULARY = 49408


def open_checkpoint(file: Path, dtype: torch.dtype) -> dict[str, Any]:
    """The five parts of a backbone by name.

    Raises: BackboneError for a file of another model.
    """
    from diffusers import StableDiffusionPipeline

    configs = _configs(file)
    LOGGER.info("backbone: the file %s, configured as %s", file, configs)
    try:
        pipeline = StableDiffusionPipeline.from_single_file(
            str(file),
            config=str(configs),
            local_files_only=True,
            torch_dtype=dtype,
            tokenizer=open_tokenizer(file),
            safety_checker=None,
            feature_extractor=None,
        )
    except (KeyError, ValueError, AttributeError) as error:
        raise BackboneError(
            f"{file}: its weights are not those that {configs} describes ({error}); put the "
            f"right configuration into a folder {file.with_suffix('')}"
        ) from error
    parts = {name: getattr(pipeline, name) for name in ("vae", "text_encoder", "unet")}
    for name, module in parts.items():
        absent = [key for key, value in module.named_parameters() if value.is_meta]
        if absent:
            raise BackboneError(
                f"{file}: {len(absent)} weights of the {name} are not in it (first: {absent[0]}); "
                "expected a whole checkpoint"
            )
    return {**parts, "tokenizer": pipeline.tokenizer, "scheduler": pipeline.scheduler}


def open_tokenizer(file: Path) -> Any:
    """CLIP's tokenizer for a checkpoint: from the folder beside it, else from open_clip.

    Raises: MissingExtra where neither is there.
    """
    from transformers import CLIPTokenizer

    configs = _configs(file)
    if (configs / "tokenizer" / "vocab.json").is_file():
        return CLIPTokenizer.from_pretrained(str(configs), subfolder="tokenizer")
    with tempfile.TemporaryDirectory() as folder:
        write_clip_tokenizer(Path(folder), configs / "tokenizer" / "tokenizer_config.json")
        return CLIPTokenizer.from_pretrained(folder)


def write_clip_tokenizer(folder: Path, config: Path) -> None:
    """Write CLIP's vocabulary (49408 tokens) and merges, as the package open_clip carries them.

    Raises: MissingExtra when that package is not installed.
    """
    extras.require(
        "open_clip",
        "a single-file checkpoint without a folder of its name beside it that holds the model's "
        "folder `tokenizer`",
    )
    # Found, not imported: that would take seconds.
    spec = importlib.util.find_spec("open_clip")
    assert spec and spec.origin
    packed = Path(spec.origin).parent / "bpe_simple_vocab_16e6.txt.gz"
    characters = alphabet()
    lines = gzip.decompress(packed.read_bytes()).decode("utf-8").split("\n")
    # The first line is a title; the file goes on beyond what CLIP uses.
    merges = lines[1 : _VOCABULARY - 2 * len(characters) - 2 + 1]
    tokens = [*characters, *(c + "</w>" for c in characters)]
    tokens += [*(line.replace(" ", "") for line in merges), START, END]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    text = json.dumps(vocabulary, ensure_ascii=False)
    (folder / "vocab.json").write_text(text, encoding="utf-8")
    text = "\n".join(["#version: 0.2", *merges]) + "\n"
    (folder / "merges.txt").write_text(text, encoding="utf-8")
    shutil.copy(config, folder / "tokenizer_config.json")


def _configs(file: Path) -> Path:
    beside = file.with_suffix("")
    if (beside / "model_index.json").is_file():
        return beside
    return ARCHITECTURES / architecture(file)


def architecture(file: Path) -> str:
    """The name of the packaged configuration that a checkpoint's shapes fit.

    Raises: BackboneError for a file that is damaged or of another model.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as opened:
            shapes = {key: opened.get_slice(key).get_shape() for key in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise BackboneError(f"{file}: not a whole .safetensors file ({error})") from error
    projections = [shapes[key] for n in range(12) if (key := _TELLTALE.format(n)) in shapes]
    if not projections or _INPUT not in shapes:
        first = ", ".join(sorted(shapes)[:3])
        raise BackboneError(
            f"{file}: found {len(shapes)} tensors ({first}, ...), expected a checkpoint of Stable "
            "Diffusion 1.x or 2.x with model.diffusion_model.*, first_stage_model.* and "
            "cond_stage_model.*"
        )
    width, channels = projections[0][-1], shapes[_INPUT][1]
    if width not in _WIDTHS or channels != 4:
        raise BackboneError(
            f"{file}: its UNet takes {channels} channels and text of width {width}, expected 4 "
            "and 768 or 1024: Stable Diffusion 1.x or 2.x, text to image"
        )
    return _WIDTHS[width]
