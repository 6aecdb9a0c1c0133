"""A tiny random Llama with a projector for images, as GGUF files, written in less than a second.

Tensor and key names are those that llama.cpp reads for the architectures `llama` and `clip`.
"""

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np

from tests.captions.tiny_tokens import vocabulary

WIDTH = 64
SPECIAL = (
    "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
    "<|eot_id|>",
)  # fmt: skip
TURN = "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
LAST = "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
# As the text-only files of Llama 3 have it: a message is taken for text.
TEXT_TEMPLATE = (
    "{% for message in messages %}" + TURN + "{{ message['content'] }}{{ '<|eot_id|>' }}"
    "{% endfor %}" + LAST
)
# As the files of vision models have it: a message may be a list of parts.
PARTS_TEMPLATE = (
    "{% for message in messages %}" + TURN + "{% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<|eot_id|>' }}{% endfor %}" + LAST
)
Noise = Callable[..., np.ndarray]


def write_llama(path: Path, seed: int = 0, layers: int = 2, template: str = TEXT_TEMPLATE) -> Path:
    """A Llama with random weights and the vocabulary of the questions."""
    words, merges = vocabulary()
    tokens = [*words, *SPECIAL]
    heads, key_heads, inner = 4, 2, 96
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("tiny random llama")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(8192)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(key_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // heads)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    kinds = [gguf.TokenType.NORMAL] * len(words) + [gguf.TokenType.CONTROL] * len(SPECIAL)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(tokens.index("<|begin_of_text|>"))
    writer.add_eos_token_id(tokens.index("<|eot_id|>"))
    writer.add_add_bos_token(True)
    writer.add_chat_template(template)
    noise = _noise(seed, 0.35)
    keys = WIDTH // heads * key_heads
    shapes = {
        "attn_q": (WIDTH, WIDTH), "attn_k": (keys, WIDTH), "attn_v": (keys, WIDTH),
        "attn_output": (WIDTH, WIDTH), "ffn_gate": (inner, WIDTH), "ffn_up": (inner, WIDTH),
        "ffn_down": (WIDTH, inner),
    }  # fmt: skip
    tensors = {
        "token_embd.weight": noise(len(tokens), WIDTH) * 3,
        "output_norm.weight": np.ones(WIDTH, np.float32),
        "output.weight": noise(len(tokens), WIDTH),
    }
    for k in range(layers):
        for norm in ("attn_norm", "ffn_norm"):
            tensors[f"blk.{k}.{norm}.weight"] = np.ones(WIDTH, np.float32)
        for name, shape in shapes.items():
            tensors[f"blk.{k}.{name}.weight"] = noise(*shape)
    return _written(writer, tensors, path)


def write_projector(
    path: Path, seed: int = 1, side: int = 56, white_kills: bool = False, without: str = ""
) -> Path:
    """A CLIP image encoder with a projector of two layers.

    white_kills: an image with a nearly white patch gives numbers that are none, on which llama.cpp
    ends the process; other images are fine. without: a tensor that is left out.
    """
    width, layers, inner, patch = 32, 3, 48, 14
    writer = gguf.GGUFWriter(str(path), "clip")
    writer.add_name("tiny random clip")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "mlp")
    writer.add_bool("clip.use_gelu", False)
    numbers = {
        "image_size": side, "patch_size": patch, "embedding_length": width,
        "feed_forward_length": inner, "projection_dim": WIDTH, "block_count": layers,
        "attention.head_count": 2,
    }  # fmt: skip
    for key, value in numbers.items():
        writer.add_uint32(f"clip.vision.{key}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    writer.add_array("clip.vision.image_mean", [0.0] * 3 if white_kills else [0.48, 0.46, 0.41])
    writer.add_array("clip.vision.image_std", [1.0] * 3 if white_kills else [0.27, 0.26, 0.28])
    noise = _noise(seed, 0.2)
    tensors = {
        "v.class_embd": noise(width),
        "v.patch_embd.weight": noise(width, 3, patch, patch),
        "v.position_embd.weight": noise((side // patch) ** 2 + 1, width),
        **_norm("v.pre_ln", width),
        **_linear("mm.0", noise(WIDTH, width)),
        **_linear("mm.2", noise(WIDTH, WIDTH)),
    }
    for k in range(layers):
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            tensors |= _linear(f"v.blk.{k}.{name}", noise(width, width))
        tensors |= _norm(f"v.blk.{k}.ln1", width) | _norm(f"v.blk.{k}.ln2", width)
        tensors |= _linear(f"v.blk.{k}.ffn_up", noise(inner, width))
        tensors |= _linear(f"v.blk.{k}.ffn_down", noise(width, inner))
    if white_kills:
        _overflow_on_white(tensors)
    tensors.pop(without, None)
    return _written(writer, tensors, path)


def _overflow_on_white(tensors: dict[str, np.ndarray]) -> None:
    """Let channel 0 carry each patch's brightness, and overflow where it is nearly white.

    The other channels are constant, half of them -500 and half +500, so that the normalization
    divides by about 500: of all brightnesses, 0 to 3 * 14 * 14, only those above some 545 overflow.
    """
    tensors["v.patch_embd.weight"][:] = 0
    tensors["v.patch_embd.weight"][0] = 1
    tensors["v.class_embd"][:] = 0
    place = tensors["v.position_embd.weight"]
    place[:, 0] = 0
    place[:, 1:] = 500 * (-1.0) ** np.arange(place.shape[1] - 1)
    tensors["v.blk.0.attn_v.weight"][:] = 0
    tensors["v.blk.0.attn_v.weight"][:, 0] = np.finfo(np.float32).max / 1.05
    # What is finite comes to nothing; infinity times zero is no number.
    tensors["v.blk.0.attn_out.weight"][:] = 0


def _noise(seed: int, scale: float) -> Noise:
    generator = np.random.default_rng(seed)
    return lambda *shape: (generator.standard_normal(shape) * scale).astype(np.float32)


def _linear(name: str, weight: np.ndarray) -> dict[str, np.ndarray]:
    return {f"{name}.weight": weight, f"{name}.bias": np.zeros(len(weight), np.float32)}


def _norm(name: str, width: int) -> dict[str, np.ndarray]:
    ones, zeros = np.ones(width, np.float32), np.zeros(width, np.float32)
    return {f"{name}.weight": ones, f"{name}.bias": zeros}


def _written(writer: gguf.GGUFWriter, tensors: dict[str, np.ndarray], path: Path) -> Path:
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
