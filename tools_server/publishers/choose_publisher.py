"""The image publisher that the config's `publisher` describes."""

from __future__ import annotations

from typing import Any

from mmsearch_jax.core.errors import ConfigError
from tools_server.backends.web import ImagePublisher
from tools_server.publishers.blobs import BlobPublisher

KINDS = ("none", "blobs", "bucket")


def default_publisher() -> dict[str, Any]:
    """The section `publisher` of the config."""
    return {
        # none: only backends that take bytes; blobs: a public route of this server; bucket: S3 or Google Cloud Storage.
        "kind": "none",
        # For how long a published image can be fetched.
        "ttl_s": 600.0,
        # blobs: the address at which the world reaches this server, and the bound on images kept at once.
        "public_url": "",
        "max_bytes": 256 * 2**20,
        # bucket: s3://BUCKET/PREFIX or gs://BUCKET/PREFIX; for another server with S3's protocol its address.
        "bucket_url": "",
        "endpoint_url": "",
        "region": "",
    }


def make_publisher(own: Any) -> ImagePublisher | None:
    """The publisher; None where the kind is "none".

    Raises:
      ConfigError: a value that is missing, not known or out of range.
    """
    if own.kind not in KINDS:
        raise ConfigError(f"config.publisher.kind is '{own.kind}', must be one of {', '.join(KINDS)}")
    if own.kind == "none":
        return None
    if not own.ttl_s > 0 or own.max_bytes < 1:
        raise ConfigError("config.publisher: ttl_s and max_bytes must be above 0")
    if own.kind == "blobs":
        if not own.public_url.startswith(("http://", "https://")):
            raise ConfigError(
                "config.publisher.kind is 'blobs': set config.publisher.public_url to the address (http:// or https://) at "
                "which search providers reach this server"
            )
        return BlobPublisher(own.public_url, own.ttl_s, own.max_bytes)
    if not own.bucket_url.startswith(("s3://", "gs://")):
        raise ConfigError(
            "config.publisher.kind is 'bucket': set config.publisher.bucket_url, as s3://BUCKET/PREFIX or gs://BUCKET/PREFIX"
        )
    try:
        from tools_server.publishers.bucket import BucketPublisher
    except ModuleNotFoundError as error:
        raise ConfigError("a bucket needs the package obstore: pip install 'mmsearch-jax[bucket]'") from error
    return BucketPublisher(own.bucket_url, own.ttl_s, own.endpoint_url, own.region)
