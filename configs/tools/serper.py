"""Web search with one key: text by Serper (https://serper.dev), and images by Google Cloud Vision if its key is set.

SERPER_API_KEY=... mmsearch serve-tools --config configs/tools/serper.py
"""

import os

import ml_collections

from mmsearch_jax.core.config_files import as_config
from tools_server.settings.answering import BudgetSettings, CacheSettings, SummariserSettings
from tools_server.settings.page_reading import ReaderSettings
from tools_server.settings.server import ServerSettings
from tools_server.settings.sources import ImageSources, TextSources


def get_config() -> ml_collections.ConfigDict:
    """Text search by Serper, and image search if GOOGLE_VISION_API_KEY is set."""
    images = ("google_vision",) if os.environ.get("GOOGLE_VISION_API_KEY") else ()
    return as_config(
        ServerSettings(
            text=TextSources(("serper",)),
            image=ImageSources(images),
            cache=CacheSettings(mode="live"),
            reader=ReaderSettings(kind="pages"),
            summariser=SummariserSettings(kind="extract"),
            # 10,000 calls at the list price. Raise it when you know your run's needs (docs/tools_server.md).
            budget=BudgetSettings(max_usd=10.0),
        )
    )
