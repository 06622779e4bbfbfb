"""Web search through your own SearXNG server, without a key; its settings must list `json` in `search.formats`.

mmsearch serve-tools --config configs/tools/searxng.py --config.backends.searxng.url=http://127.0.0.1:8080
"""

import ml_collections

from mmsearch_jax.core.config_files import as_config
from tools_server.settings.answering import CacheSettings, SummariserSettings
from tools_server.settings.page_reading import ReaderSettings
from tools_server.settings.server import ServerSettings
from tools_server.settings.sources import ImageSources, TextSources


def get_config() -> ml_collections.ConfigDict:
    """Text search through SearXNG."""
    return as_config(
        ServerSettings(
            text=TextSources(("searxng",)),
            image=ImageSources(()),
            cache=CacheSettings(mode="live"),
            reader=ReaderSettings(kind="pages"),
            summariser=SummariserSettings(kind="extract"),
        )
    )
