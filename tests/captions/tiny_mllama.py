"""A tiny random Llama 3.2 Vision (Mllama) with its processor, written in a second."""

from pathlib import Path

from tests.captions.tiny_tokens import backend_tokenizer

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|image|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
SPECIAL = (
    "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
    "<|eot_id|>", "<|pad|>", "<|image|>", "<|python_tag|>",
)  # fmt: skip


def write_mllama(folder: Path, seed: int = 0) -> Path:
    """Write model, tokenizer (bytes) and processor as a hub repository has them."""
    import torch
    from transformers import MllamaConfig, MllamaForConditionalGeneration, MllamaProcessor
    from transformers.models.mllama.image_processing_mllama import MllamaImageProcessor

    tokenizer = _tokenizer()
    images = MllamaImageProcessor(size={"height": 28, "width": 28}, max_image_tiles=1)
    MllamaProcessor(images, tokenizer, chat_template=TEMPLATE).save_pretrained(folder)
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    torch.manual_seed(seed)
    config = MllamaConfig(
        vision_config={
            "hidden_size": 32, "num_hidden_layers": 2, "num_global_layers": 1,
            "attention_heads": 2, "intermediate_size": 48, "vision_output_dim": 64,
            "image_size": 28, "patch_size": 14, "max_num_tiles": 1,
            "intermediate_layers_indices": [1], "supported_aspect_ratios": [[1, 1]],
        },
        text_config={
            "vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 3,
            "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48,
            "cross_attention_layers": [1], "max_position_embeddings": 8192,
            "bos_token_id": ids["<|begin_of_text|>"], "eos_token_id": ids["<|eot_id|>"],
            "pad_token_id": ids["<|pad|>"],
        },
        image_token_index=ids["<|image|>"],
    )  # fmt: skip
    model = MllamaForConditionalGeneration(config)
    with torch.no_grad():
        for name, values in model.named_parameters():
            # Without its gates the text would not see the image.
            values.fill_(1.0) if "gate" in name.rsplit(".", 1)[-1] else values.mul_(8)
    model.save_pretrained(folder)
    return folder


def _tokenizer():
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=backend_tokenizer(SPECIAL), bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>", pad_token="<|pad|>",
    )  # fmt: skip
