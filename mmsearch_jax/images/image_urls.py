"""Images given by a URL: `data:` URLs are decoded, `http:` and `https:` URLs are fetched."""

from __future__ import annotations

import base64
import http.client
import urllib.error
import urllib.parse
import urllib.request

from mmsearch_jax.core.errors import ImageError

SCHEMES = ("data:", "http://", "https://")
MAX_BYTES = 64 << 20
_TIMEOUT_S = 30.0
_SHOWN = 80


def read_url(url: str) -> bytes:
    """The encoded image at a URL.

    Raises:
      ImageError: the URL is malformed or cannot be fetched, or the image is larger than `MAX_BYTES`.
    """
    encoded = _decode(url) if url.startswith("data:") else _fetch(url)
    if len(encoded) > MAX_BYTES:
        raise ImageError(f"{shown(url)} is larger than {MAX_BYTES >> 20} MiB: give a smaller image")
    return encoded


def shown(url: str) -> str:
    """The URL for an error message: a long one, such as a data URL, is cut."""
    return url if len(url) <= _SHOWN else f"{url[:_SHOWN]}..."


def _decode(url: str) -> bytes:
    head, comma, body = url.partition(",")
    if not comma:
        raise ImageError(f"{shown(url)} has no comma: a data URL is data:image/png;base64,...")
    try:
        return (
            base64.b64decode(body, validate=True) if head.endswith(";base64") else urllib.parse.unquote_to_bytes(body)
        )
    except ValueError as error:
        raise ImageError(f"{shown(url)} cannot be decoded ({error})") from error


def _fetch(url: str) -> bytes:
    request = urllib.request.Request(url, headers={"User-Agent": "mmsearch-jax"})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            # Read one byte more than is allowed, to detect a file that is too large.
            return answer.read(MAX_BYTES + 1)
    except urllib.error.HTTPError as error:
        raise ImageError(f"{shown(url)} answers HTTP {error.code} {error.reason}: check the address") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise ImageError(f"{shown(url)} cannot be fetched ({error}): check the address and the network") from error
