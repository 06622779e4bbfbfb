"""Devices to compile for, and the message if there are none."""

import importlib.util

import pytest

from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.distributed.topologies import parse
from mmsearch_jax.planning.devices import devices_of


def test_without_libtpu_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"libtpu is not installed.*pip install 'mmsearch-jax\[plan\]'"):
        devices_of(parse("v5p:2x2x1"))


def test_more_gpus_than_can_be_played_are_refused():
    with pytest.raises(ConfigError, match="h100:8192: at most 1024 GPUs can be planned"):
        devices_of(parse("h100:8192"))
