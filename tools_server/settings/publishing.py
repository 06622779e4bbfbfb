"""Where an image is put so that a search provider can fetch it."""

from __future__ import annotations

import dataclasses

from mmsearch_jax.core.settings import Section, SettingError, setting
from tools_server.settings.environment import check_packages


@dataclasses.dataclass(frozen=True)
class PublisherSettings(Section):
    """The image publisher. Backends that take the image itself need none."""

    kind: str = setting(
        "none",
        "none; blobs: a public route of this server; bucket: S3 or Google Cloud Storage",
        one_of=("none", "blobs", "bucket"),
    )
    ttl_s: float = setting(600.0, "seconds for which a published image can be fetched", above=0)
    public_url: str = setting("", "blobs: the address at which providers reach this server")
    max_bytes: int = setting(256 * 2**20, "blobs: bytes of all images that are published at the same time", at_least=1)
    bucket_url: str = setting("", "bucket: s3://BUCKET/PREFIX or gs://BUCKET/PREFIX")
    endpoint_url: str = setting("", "bucket: address of another server with S3's protocol; empty: the cloud's own")
    region: str = setting("", "bucket: region of an S3 bucket; empty: as the environment says")

    def check(self) -> None:
        if self.kind == "blobs" and not self.public_url.startswith(("http://", "https://")):
            raise SettingError(
                "public_url",
                f"is '{self.public_url}', but kind is 'blobs': give the address (http:// or https://) at which providers "
                "reach this server",
            )
        if self.kind == "bucket" and not self.bucket_url.startswith(("s3://", "gs://")):
            raise SettingError(
                "bucket_url",
                f"is '{self.bucket_url}', but kind is 'bucket': give s3://BUCKET/PREFIX or gs://BUCKET/PREFIX",
            )

    def check_ready(self) -> None:
        if self.kind == "bucket":
            check_packages(("obstore",), "bucket", "kind", self.kind)
