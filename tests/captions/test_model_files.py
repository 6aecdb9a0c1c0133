"""Files of models, on disk and from a hub; the hub is a small server of our own on this machine."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from didgen.captions.llm import ModelError
from didgen.captions.model_files import file_identity, folder_identity, local_file, local_folder

FILES = [{"type": "file", "path": "config.json", "size": 2, "oid": "b" * 40}]
ASKING = """
import sys
from didgen.captions import model_files
for verb, name in zip(sys.argv[1::2], sys.argv[2::2]):
    try:
        print(getattr(model_files, verb)(name))
    except model_files.ModelError as error:
        print(error)
"""


class Hub(BaseHTTPRequestHandler):
    """Lists the files of a/gated but gives out none; knows no other repository."""

    def do_GET(self):
        if not self.path.startswith("/api/models/"):
            self.answer(401, error="GatedRepo")
        elif "/a/gated/tree/" in self.path:
            self.answer(200, FILES)
        elif "/a/gated/" in self.path:
            self.answer(200, {"id": "a/gated", "sha": "a" * 40, "gated": "manual", "siblings": []})
        else:
            self.answer(401, error="RepoNotFound")

    do_HEAD = do_GET

    def answer(self, status, value="", error=""):
        body = b"" if error else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_what_the_hub_refuses_is_explained(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    # The library reads its address when it is imported, so another process asks.
    environment = os.environ | {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path),
        "HF_TOKEN": "", "HF_HUB_OFFLINE": "0",
    }  # fmt: skip
    asked = ["local_folder", "a/gated", "local_file", "a/gated/m.gguf", "local_folder", "a/gone"]
    done = subprocess.run(
        [sys.executable, "-c", ASKING, *asked], env=environment, capture_output=True, text=True
    )
    server.shutdown()
    server.server_close()
    assert done.returncode == 0, done.stderr
    folder, file, gone = done.stdout.splitlines()
    assert folder == file
    assert folder.startswith("a/gated is gated: its licence must be accepted once. Log in at")
    assert "https://huggingface.co/a/gated, accept it" in folder and "HF_TOKEN" in folder
    assert gone.startswith("a/gone: no such repository on the Hugging Face hub, or a private one")


def test_what_is_on_disk_is_used_and_what_is_nowhere_is_named(tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    assert local_file(str(tmp_path / "m.gguf")) == tmp_path / "m.gguf"
    assert local_folder(str(tmp_path)) == tmp_path
    for name in ("m.gguf", str(tmp_path / "none.gguf"), "./a/b/c.gguf"):
        with pytest.raises(ModelError, match="no such file; give a file or owner/repository/file"):
            local_file(name)
    for name in ("m", str(tmp_path / "none"), "./a/b"):
        with pytest.raises(ModelError, match="no such folder; give a folder or owner/repository"):
            local_folder(name)
    with pytest.raises(ModelError, match="holds no model"):
        folder_identity(tmp_path)


def test_a_file_is_named_by_its_contents_which_the_hubs_cache_already_knows(tmp_path):
    digest = hashlib.sha256(b"GGUF").hexdigest()
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    assert file_identity(tmp_path / "m.gguf") == digest
    # As in the cache: a link onto a file named by its SHA-256, which is not read again.
    (tmp_path / ("0" * 64)).write_bytes(b"other")
    (tmp_path / "link.gguf").symlink_to(tmp_path / ("0" * 64))
    assert file_identity(tmp_path / "link.gguf") == "0" * 64
