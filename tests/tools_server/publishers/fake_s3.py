"""A small S3: accepts objects in signed requests, and serves them at signed addresses until these expire.

It computes signatures itself from the secret, by Amazon's description of Signature Version 4.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import urllib.parse

from aiohttp import web

from tests.tools_server.fetch.site import Site

KEY_ID, SECRET, REGION = "AKIDEXAMPLE", "s3cret/of+the+test", "eu-central-1"


class FakeS3(Site):
    """Keeps objects by path; refuses requests that are not signed with the secret."""

    def __init__(self) -> None:
        super().__init__(self._object)
        self.objects: dict[str, tuple[bytes, str]] = {}
        self.refused = 0
        self.late_s = 0.0
        """The lead of this server's clock in seconds."""

    async def _object(self, request: web.Request) -> web.Response:
        body = await request.read()
        if not (
            self._signed_address(request) if "X-Amz-Signature" in request.query else self._signed_request(request, body)
        ):
            self.refused += 1
            return web.Response(
                status=403, text="<Error><Code>SignatureDoesNotMatch</Code></Error>", content_type="application/xml"
            )
        if request.method == "PUT":
            self.objects[request.path] = (body, request.headers.get("Content-Type", ""))
            return web.Response(headers={"ETag": f'"{hashlib.md5(body).hexdigest()}"'})
        if request.path not in self.objects:
            return web.Response(status=404)
        kept, kind = self.objects[request.path]
        return web.Response(body=kept, headers={"Content-Type": kind})

    def _signed_request(self, request: web.Request, body: bytes) -> bool:
        fields = dict(
            part.strip().split("=", 1)
            for part in request.headers["Authorization"].removeprefix("AWS4-HMAC-SHA256 ").split(",")
        )
        content = request.headers["x-amz-content-sha256"]
        if content not in ("UNSIGNED-PAYLOAD", hashlib.sha256(body).hexdigest()):
            return False
        query = sorted(request.query.items())
        expected = _signature(request, query, fields["SignedHeaders"], content, request.headers["x-amz-date"])
        return fields["Credential"].startswith(KEY_ID + "/") and hmac.compare_digest(expected, fields["Signature"])

    def _signed_address(self, request: web.Request) -> bool:
        asked = request.query
        query = sorted((name, value) for name, value in asked.items() if name != "X-Amz-Signature")
        expected = _signature(request, query, asked["X-Amz-SignedHeaders"], "UNSIGNED-PAYLOAD", asked["X-Amz-Date"])
        made = datetime.datetime.strptime(asked["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.UTC)
        age_s = (datetime.datetime.now(datetime.UTC) - made).total_seconds() + self.late_s
        return hmac.compare_digest(expected, asked["X-Amz-Signature"]) and age_s <= float(asked["X-Amz-Expires"])


def _signature(request: web.Request, query: list[tuple[str, str]], signed: str, content: str, date: str) -> str:
    encoded = "&".join(f"{_quote(name)}={_quote(value)}" for name, value in query)
    headers = "".join(f"{name}:{' '.join(request.headers[name].split())}\n" for name in signed.split(";"))
    canonical = "\n".join([request.method, request.rel_url.raw_path, encoded, headers, signed, content])
    scope = f"{date[:8]}/{REGION}/s3/aws4_request"
    to_sign = "\n".join(["AWS4-HMAC-SHA256", date, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = b"AWS4" + SECRET.encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, to_sign.encode(), "sha256").hex()


def _quote(text: str) -> str:
    return urllib.parse.quote(text, safe="-_.~")
