"""A byte-pair vocabulary of some hundred words, learnt from the requests themselves."""

from functools import cache

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from didgen.captions.attributes import Attributes
from didgen.captions.llm import ImageFile
from didgen.captions.llm_captions import attributes_request, sentence_request

SIZE = 700


@cache
def vocabulary() -> tuple[list[str], list[tuple[str, str]]]:
    """Words in the order of their ids (bytes as GPT-2 writes them), and merges by rank."""
    import json

    image = ImageFile(None, "", 0)
    requests = [attributes_request(image), sentence_request(Attributes(size="small"))]
    texts = [part for one in requests for part in (one.system, one.text)]
    texts += [json.dumps({"size": "small", "shape": None, "colors": ["tan"]})] * 3
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    model = json.loads(backend.to_str())["model"]
    words = sorted(model["vocab"], key=model["vocab"].get)
    return words, [tuple(merge) for merge in model["merges"]]


def backend_tokenizer(special: tuple[str, ...]) -> Tokenizer:
    """The vocabulary as a fast tokenizer, with special tokens after the words."""
    words, merges = vocabulary()
    ids = {word: k for k, word in enumerate(words)}
    backend = Tokenizer(models.BPE(vocab=ids, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(special))
    return backend
