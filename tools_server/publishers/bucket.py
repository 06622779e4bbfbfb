"""Images in a bucket (S3 and what speaks its protocol, Google Cloud Storage), fetched by signed addresses that expire.

Nothing is deleted here: give the bucket a lifecycle rule that removes what is older than a day.
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
    """Credentials are found as the cloud's own tools find them (environment, instance role).

    Args:
      url: "s3://BUCKET/PREFIX" or "gs://BUCKET/PREFIX".
      ttl_s: for how long a signed address can be used.
      endpoint_url: another server that speaks the S3 protocol (MinIO, R2, ...); "" for the cloud's own.
      region: of an S3 bucket; "" leaves it to the environment.

    Raises:
      ConfigError: the library cannot make a store of it.
    """

    def __init__(self, url: str, ttl_s: float, endpoint_url: str = "", region: str = ""):
        options: dict[str, Any] = {"endpoint": endpoint_url} if endpoint_url else {}
        if region:
            options["region"] = region
        # A bucket of one's own in one's own network may be without TLS; that it is shows in the address.
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
            # Of the error only its kind: its text holds the request, and may hold its signature.
            raise SearchFailure(
                "upstream_error",
                f"the image could not be put into the bucket ({type(error).__name__}): are its name, region and the "
                "credentials right?",
                passing=True,
            ) from None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
