"""The image publisher that the settings describe."""

from __future__ import annotations

from tools_server.backends.web import ImagePublisher
from tools_server.publishers.blobs import BlobPublisher
from tools_server.settings.publishing import PublisherSettings


def make_publisher(settings: PublisherSettings) -> ImagePublisher | None:
    """The publisher; None where the kind is "none".

    Raises:
      ConfigError: the bucket's address cannot be used.
    """
    if settings.kind == "none":
        return None
    if settings.kind == "blobs":
        return BlobPublisher(settings.public_url, settings.ttl_s, settings.max_bytes)
    # Imported here because only a bucket needs the package of the extra.
    from tools_server.publishers.bucket import BucketPublisher

    return BucketPublisher(settings.bucket_url, settings.ttl_s, settings.endpoint_url, settings.region)
