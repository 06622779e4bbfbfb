"""Real web search with one key (https://serper.dev): text by Serper, images by Google Cloud Vision where that key is set, too.

SERPER_API_KEY=... mmsearch serve-tools --config configs/tools/serper.py
"""

import os

import ml_collections

from tools_server.assembly import default_config


def get_config() -> ml_collections.ConfigDict:
    """Text search by Serper."""
    config = default_config()
    config.text.backends = ("serper",)
    config.image.backends = ("google_vision",) if os.environ.get("GOOGLE_VISION_API_KEY") else ()
    config.cache.mode = "live"
    config.reader.kind = "pages"
    config.summariser.kind = "extract"
    # 10,000 calls at the list price: raise it when you know what your run needs (docs/tools_server.md).
    config.budget.max_usd = 10.0
    return config
