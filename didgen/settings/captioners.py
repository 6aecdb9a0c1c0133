"""Captioners as the workflow sees them; of the standard library alone, as the rules need it."""

from typing import Literal

Captioner = Literal["measure", "llama_cpp", "transformers", "openai"]
# Their model is held by the job itself, which then needs its memory; a server's is not.
LOCAL_MODELS: tuple[Captioner, ...] = ("llama_cpp", "transformers")
