"""How pages of the web are fetched and read."""

from __future__ import annotations

import dataclasses

from mmsearch_jax.core.settings import Section, SettingError, setting
from tools_server.fetch.addresses import AllowList
from tools_server.settings.environment import check_packages, check_variable

WEB_PORTS = (80, 443)


@dataclasses.dataclass(frozen=True)
class FetchLimits(Section):
    """How much is fetched."""

    max_bytes: int = setting(2 * 2**20, "bytes of one page as it is transferred", at_least=1)
    max_decoded_bytes: int = setting(8 * 2**20, "bytes of one page after decompression", at_least=1)
    max_redirects: int = setting(5, "redirects that are followed", at_least=0)
    timeout_s: float = setting(
        8.0, "seconds for one page: all redirects, and the wait for other pages of the same host", above=0
    )
    max_per_host: int = setting(4, "pages fetched from one host at the same time", at_least=1)


@dataclasses.dataclass(frozen=True)
class JinaSettings(Section):
    """Jina's reader service."""

    url: str = setting("https://r.jina.ai", "address, up to the part that takes the page's address")
    key_env: str = setting("", "environment variable with the key; empty: use it without one")

    def check(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise SettingError("url", f"is '{self.url}': give an address such as https://r.jina.ai")


@dataclasses.dataclass(frozen=True)
class ReaderSettings(FetchLimits):
    """Whether the first pages of a text search are read, and how."""

    kind: str = setting(
        "none",
        "none: results keep their snippets; pages: this server fetches and reads pages; jina: Jina's service reads them",
        one_of=("none", "pages", "jina"),
    )
    num_pages: int = setting(3, "pages of one search that are read", at_least=1)
    max_chars: int = setting(20_000, "characters of a page's text", at_least=1)
    allow: tuple[str, ...] = setting(
        (), "hosts, addresses and networks that may be fetched although they are not public; each may end in :PORT"
    )
    ports: tuple[int, ...] = setting(WEB_PORTS, "ports of public hosts", at_least=1, at_most=65535)
    max_concurrency: int = setting(32, "pages in progress at the same time", at_least=1)
    num_processes: int = setting(2, "processes that parse pages", at_least=1)
    parse_timeout_s: float = setting(4.0, "seconds after which a process that parses a page is killed", above=0)
    max_memory_bytes: int = setting(2**30, "memory of such a process, besides its modules", at_least=1)
    user_agent: str = setting("Mozilla/5.0 (compatible; mmsearch-jax)", "the User-Agent header of requests")
    jina: JinaSettings = setting(JinaSettings(), "used where kind is jina")

    def check(self) -> None:
        AllowList(self.allow)

    def check_ready(self) -> None:
        if self.kind != "none":
            check_packages(("lxml", "pebble", "trafilatura"), "tools", "kind", self.kind)
        if self.kind == "jina":
            check_variable(self.jina.key_env, "jina.key_env")
