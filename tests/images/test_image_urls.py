"""Images from URLs, from a real server on a free loopback port."""

import base64
import http.server
import io
import threading
import urllib.parse

import numpy as np
import pytest
from PIL import Image

from mmsearch_jax.core.errors import ImageError
from mmsearch_jax.images import image_urls
from mmsearch_jax.images.processing import load_image


def png() -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.arange(8 * 6 * 3, dtype=np.uint8).reshape(8, 6, 3)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def server():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            found = self.path == "/a.png"
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(png() if found else b"")

        def log_message(self, format, *args):
            pass

    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()


def test_an_image_is_fetched(server):
    assert load_image(f"{server}/a.png").tobytes() == load_image(png()).tobytes()


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64," + base64.b64encode(png()).decode(),
        "data:image/png," + urllib.parse.quote_from_bytes(png()),
    ],
)
def test_an_image_in_the_url_itself(url):
    assert load_image(url).tobytes() == load_image(png()).tobytes()


def test_what_cannot_be_had_is_said(server, monkeypatch):
    with pytest.raises(ImageError, match=r"/b.png answers HTTP 404 Not Found: check the address"):
        load_image(f"{server}/b.png")
    with pytest.raises(ImageError, match="http://127.0.0.1:9/a.png cannot be fetched"):
        load_image("http://127.0.0.1:9/a.png")
    with pytest.raises(ImageError, match="cannot be fetched"):
        load_image("http://:not-a-port/a.png")
    with pytest.raises(ImageError, match="cannot be decoded"):
        load_image("data:image/png;base64,@@@")
    with pytest.raises(ImageError, match="has no comma"):
        load_image("data:image/png")
    long = "data:image/png;base64," + base64.b64encode(b"no image" * 50).decode()
    with pytest.raises(ImageError) as caught:
        load_image(long)
    assert len(str(caught.value)) < 200
    monkeypatch.setattr(image_urls, "MAX_BYTES", 20)
    with pytest.raises(ImageError, match="is larger than"):
        load_image(f"{server}/a.png")
