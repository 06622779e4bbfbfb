"""Web search through a SearXNG of your own, without a key; `json` must be among `search.formats` in its settings.

mmsearch serve-tools --config configs/tools/searxng.py --config.backends.searxng.url=http://127.0.0.1:8080
"""

import ml_collections

from tools_server.assembly import default_config


def get_config() -> ml_collections.ConfigDict:
    """Text search by SearXNG."""
    config = default_config()
    config.text.backends = ("searxng",)
    config.image.backends = ()
    config.cache.mode = "live"
    config.reader.kind = "pages"
    config.summariser.kind = "extract"
    return config
