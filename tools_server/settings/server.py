"""The whole tree of the search server."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from mmsearch_jax.core.settings import Section, SettingError, setting
from tools_server.backends.providers import IMAGE, TEXT
from tools_server.settings.answering import BudgetSettings, CacheSettings, ServiceLimits, SummariserSettings
from tools_server.settings.detection import GrounderSettings
from tools_server.settings.environment import check_variable
from tools_server.settings.page_reading import ReaderSettings
from tools_server.settings.publishing import PublisherSettings
from tools_server.settings.sources import (
    LOCAL,
    ImageSources,
    LocalSettings,
    TextSources,
    WebBackendSettings,
    provider_backends,
)


@dataclasses.dataclass(frozen=True)
class ServerSettings(Section):
    """A server; with the defaults it searches a corpus on this machine."""

    host: str = setting("127.0.0.1", "address to listen on; 127.0.0.1 is reached from this machine only")
    port: int = setting(8765, "port to listen on; 0: a free one", at_least=0, at_most=65535)
    token_env: str = setting("", "environment variable with the token that callers must send; empty: no token")
    corpus: str = setting(
        "",
        "for the backend local: a folder with pages.jsonl, images.jsonl and pictures, or an index (`mmsearch index`)",
    )
    local: LocalSettings = setting(LocalSettings(), "how the corpus is searched")
    text: TextSources = setting(TextSources(), "who answers text searches")
    image: ImageSources = setting(ImageSources(), "who answers image searches")
    backends: Mapping[str, WebBackendSettings] = setting(provider_backends(), "the web backends by name")
    cache: CacheSettings = setting(CacheSettings(), "answers that are kept")
    reader: ReaderSettings = setting(ReaderSettings(), "pages of a text search that are read")
    publisher: PublisherSettings = setting(PublisherSettings(), "where images are put for providers that fetch them")
    budget: BudgetSettings = setting(BudgetSettings(), "what a run may spend")
    summariser: SummariserSettings = setting(SummariserSettings(), "the summary of results")
    grounder: GrounderSettings = setting(GrounderSettings(), "who finds the region that an expression names")
    limits: ServiceLimits = setting(ServiceLimits(), "limits of requests")

    @property
    def web_text(self) -> tuple[str, ...]:
        """The web backends of text search, in order."""
        return tuple(name for name in self.text.backends if name != LOCAL)

    @property
    def web_image(self) -> tuple[str, ...]:
        """The web backends of image search, in order."""
        return tuple(name for name in self.image.backends if name != LOCAL)

    @property
    def searches_corpus(self) -> bool:
        """Whether the backend `local` is used."""
        return LOCAL in (*self.text.backends, *self.image.backends)

    def check(self) -> None:
        for name in self.backends:
            if name not in TEXT and name not in IMAGE:
                raise SettingError(f"backends.{name}", f"is no provider: known are {', '.join([*TEXT, *IMAGE])}")
        for name in (*self.web_text, *self.web_image):
            if name not in self.backends:
                raise SettingError(
                    f"backends.{name}", "is missing, but a search uses it: set its url, key_env, cost_usd"
                )
        for name in self.web_image:
            if IMAGE[name].wants == "url" and self.publisher.kind == "none":
                raise SettingError(
                    "publisher.kind",
                    f"is 'none', but the backend '{name}' fetches images from a public address: set it to blobs or bucket, or "
                    "use google_vision, which takes the image itself",
                )

    def check_ready(self) -> None:
        check_variable(self.token_env, "token_env")
        if self.searches_corpus and not self.corpus:
            raise SettingError(
                "corpus",
                "is empty, but the backend 'local' needs a corpus: give --corpus DIR, or name web backends in text.backends "
                "and image.backends",
            )
        for name in (*self.web_text, *self.web_image):
            provider = TEXT.get(name) or IMAGE[name]
            variable = self.backends[name].key_env
            if provider.key_env and not variable:
                raise SettingError(
                    f"backends.{name}.key_env",
                    f"is empty, but the backend needs a key: name the environment variable with it, such as {provider.key_env}",
                )
            check_variable(variable, f"backends.{name}.key_env")
