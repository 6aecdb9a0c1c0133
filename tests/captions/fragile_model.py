"""A model that does what its requests say, in whichever process it is loaded.

Copied into a folder of its own by `fragile`, and named there by "fragile_model:FragileModel".
"""

import os
import time
from pathlib import Path

from didgen.captions.llm import ChatResponse, Failure, ModelError


class FragileModel:
    """Responds with the request's text; writes each request into `log` before."""

    def __init__(self, log, refuse=False, die=False):
        if refuse:
            raise ValueError("no such file")
        if die:
            print("GGML_ASSERT(false) failed", flush=True)
            os.abort()
        self.log = log

    @staticmethod
    def identify(**settings):
        return "fragile"

    def complete(self, requests):
        for index, request in enumerate(requests):
            with open(self.log, "a") as stream:
                stream.write(f"{request.text}\n")
            yield index, self._act(request.text)

    def _act(self, text):
        if text.startswith("abort"):
            os.abort()
        if text.startswith("segfault"):
            import ctypes

            ctypes.string_at(0)
        if text.startswith("exit"):
            os._exit(3)
        if text.startswith("hang"):
            time.sleep(600)
        if text.startswith("raise"):
            raise RuntimeError("out of memory")
        if text.startswith("useless"):
            raise ModelError("this model sees no images")
        if text.startswith("once") and Path(self.log).read_text().count(text) == 1:
            os.abort()
        if text.startswith("fail"):
            return Failure("cut off")
        time.sleep(float(text[4:]) if text.startswith("wait") else 0)
        return ChatResponse(text.upper(), 3, 2, 0.1)

    def close(self):
        pass
