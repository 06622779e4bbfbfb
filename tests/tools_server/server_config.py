"""A server's settings for tests: a config that tests change, and its checked tree."""

from __future__ import annotations

import ml_collections

from mmsearch_jax.core.config_files import as_config
from mmsearch_jax.core.settings import build
from tools_server.settings.server import ServerSettings


def default_config() -> ml_collections.ConfigDict:
    """All settings at their defaults."""
    return as_config(ServerSettings())


def settings_of(config: ml_collections.ConfigDict) -> ServerSettings:
    """The checked tree of a config."""
    return build(ServerSettings, config.to_dict())
