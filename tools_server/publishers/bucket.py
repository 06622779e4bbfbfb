"""Images in a bucket (S3, servers with its protocol, Google Cloud Storage), fetched by signed addresses that expire.

Nothing is deleted here: give the bucket a lifecycle rule that removes objects older than a day.
"""

from __future__ import annotations

import datetime
import secrets
from typing import Any

import obstore
from obstore.exceptions import BaseError
from obstore.store import from_url

from mmsearch_jax.core.errors import ConfigError
from tools_server.failures import SearchFailure

_TIMEOUTS: Any = {"timeout": "10s", "connect_timeout": "5s"}


class BucketPublisher:
    """Publishes images in a bucket. Credentials are found as by the cloud's own tools (environment, instance role).

    Args:
      url: "s3://BUCKET/PREFIX" or "gs://BUCKET/PREFIX".
      ttl_s: seconds for which a signed address is valid.
      endpoint_url: another server with the S3 protocol (MinIO, R2, ...); "" for the cloud's own.
      region: of an S3 bucket; "" leaves it to the environment.

    Raises:
      ConfigError: the library does not accept the address.
    """

    def __init__(self, url: str, ttl_s: float, endpoint_url: str = "", region: str = ""):
        options: dict[str, Any] = {"endpoint": endpoint_url} if endpoint_url else {}
        if region:
            options["region"] = region
        # A private server may have no TLS, which its address shows.
        client: Any = {**_TIMEOUTS, "allow_http": endpoint_url.startswith("http://")}
        retries: Any = {"max_retries": 2, "retry_timeout": datetime.timedelta(seconds=10)}
        try:
            self._store: Any = from_url(url, client_options=client, retry_config=retries, **options)
        except (BaseError, ValueError, TypeError) as error:
            raise ConfigError(f"publisher.bucket_url '{url}' cannot be used: {_first_line(error)}") from error
        self._expires = datetime.timedelta(seconds=ttl_s)

    async def publish(self, data: bytes) -> str:
        """See `ImagePublisher.publish`."""
        name = f"{secrets.token_urlsafe(24)}.jpg"
        try:
            await obstore.put_async(self._store, name, data, attributes={"Content-Type": "image/jpeg"})
            return await obstore.sign_async(self._store, "GET", name, self._expires)
        except BaseError as error:
            # Only the error's type: its text contains the request, and may contain its signature.
            raise SearchFailure(
                "upstream_error",
                f"the image could not be put into the bucket ({type(error).__name__}): are its name, region and the "
                "credentials right?",
                passing=True,
            ) from None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
