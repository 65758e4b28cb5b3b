"""Weights by name, from a hub that runs on this machine."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading

import pytest
from safetensors.numpy import save

from tests.reference.weights import clip_shapes, random_state

pytestmark = pytest.mark.slow

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SCRIPT = """
import sys
from models import jclip
from system.errors import run_script
def main():
    model, _ = jclip.load("ViT-B/32")
    print(model.sizes.vision.width, model.sizes.activation)
run_script(main)
"""
COMMIT = "0" * 40


class Hub(http.server.BaseHTTPRequestHandler):
    """The three requests that a download makes; `files` and `broken` are set by the test."""

    files, broken, requests = {}, False, []

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        name = self.path.rpartition("/")[2]
        self.requests.append((self.command, name, self.headers.get("Range")))
        content = self.files.get(name)
        if content is None or "/timm/vit_base_patch32_clip_224.openai/" not in self.path:
            self.send_error(404)
            return
        etag = hashlib.sha256(content).hexdigest()
        start = int((self.headers.get("Range") or "bytes=0-")[6:].rstrip("-"))
        body = content[start:]
        if self.broken and name.endswith(".safetensors"):
            body = b"\0" * len(body)
        self.send_response(206 if start else 200)
        for key, value in (("ETag", f'"{etag}"'), ("X-Repo-Commit", COMMIT),
                           ("Content-Length", str(len(body))), ("Accept-Ranges", "bytes")):
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    Hub.files = {
        "open_clip_model.safetensors": save(random_state(clip_shapes(width=16, vocab_size=20))),
        "open_clip_config.json": json.dumps({"model_cfg": {"quick_gelu": True}}).encode()}
    Hub.broken, Hub.requests = False, []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def load(folder, endpoint, **environment):
    """`jclip.load("ViT-B/32")` in a process of its own, with a cache and a folder of its own."""
    inherited = {name: value for name, value in os.environ.items()
                 if not name.startswith("HF_") and "proxy" not in name.lower()}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=folder, capture_output=True, text=True, timeout=200,
        env={**inherited, "PYTHONPATH": ROOT, "HF_HOME": str(folder / "hub"),
             "HF_ENDPOINT": endpoint, **environment})


def test_a_name_is_downloaded_once_and_then_cached(hub, tmp_path):
    done = load(tmp_path, hub)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "16 quick_gelu\n"
    n_requests = len(Hub.requests)
    for environment in ({}, {"HF_HUB_OFFLINE": "1"}):
        done = load(tmp_path, hub, **environment)
        assert done.returncode == 0, done.stderr
    assert len(Hub.requests) == n_requests


def test_a_broken_download_is_resumed(hub, tmp_path):
    content = Hub.files["open_clip_model.safetensors"]
    blobs = (tmp_path / "hub" / "hub" / "models--timm--vit_base_patch32_clip_224.openai"
             / "blobs")
    blobs.mkdir(parents=True)
    (blobs / f"{hashlib.sha256(content).hexdigest()}.incomplete").write_bytes(content[:5000])
    done = load(tmp_path, hub)
    assert done.returncode == 0, done.stderr
    assert ("GET", "open_clip_model.safetensors", "bytes=5000-") in Hub.requests


def test_a_damaged_download_is_refused_and_removed(hub, tmp_path):
    Hub.broken = True
    done = load(tmp_path, hub)
    assert done.returncode == 2 and "SHA-256" in done.stderr.splitlines()[-1]
    Hub.broken = False
    done = load(tmp_path, hub)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("environment", [{}, {"HF_HUB_OFFLINE": "1"}])
def test_without_a_network_the_file_and_its_place_are_named(tmp_path, environment):
    done = load(tmp_path, "http://127.0.0.1:9", **environment)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ") and "put the file at ViT-B-32.pkl" in last
    assert "Traceback" not in done.stderr


def test_a_file_in_the_folder_comes_first(hub, tmp_path):
    from system.files import write_pickle
    write_pickle(str(tmp_path / "ViT-B-32.pkl"), random_state(clip_shapes(width=32,
                                                                           vocab_size=20)))
    done = load(tmp_path, hub)
    assert done.stdout == "32 quick_gelu\n" and not Hub.requests
