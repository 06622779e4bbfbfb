"""Public addresses, and addresses that an allow list permits."""

from __future__ import annotations

import ipaddress

import pytest

from mmsearch_jax.core.errors import ConfigError
from tools_server.fetch.addresses import AllowList, is_public


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "93.184.215.14", "1.1.1.1", "223.255.255.254", "2606:4700::1", "2a00:1450::1"]
)
def test_hosts_of_the_public_internet_are_public(address: str):
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    ("entries", "address", "port", "allowed"),
    [
        (["10.0.0.0/8"], "10.1.2.3", 8080, True),
        (["10.0.0.0/8"], "11.1.2.3", 80, False),
        (["10.1.2.3:8080"], "10.1.2.3", 8080, True),
        (["10.1.2.3:8080"], "10.1.2.3", 80, False),
        (["[fd00::1]:8080"], "fd00::1", 8080, True),
        (["fd00::/64"], "fd00::5", 80, True),
        ([], "10.1.2.3", 80, False),
    ],
)
def test_an_entry_opens_its_network_and_its_port(entries: list[str], address: str, port: int, allowed: bool):
    assert AllowList(entries).has_address(ipaddress.ip_address(address), port) is allowed


def test_an_entry_may_be_a_name():
    allow = AllowList(["Wiki.corp.example", "other.example:8080"])
    assert allow.has_host("wiki.corp.example", 80) and not allow.has_host("a.wiki.corp.example", 80)
    assert allow.has_host("other.example", 8080) and not allow.has_host("other.example", 80)


@pytest.mark.parametrize("entry", ["10.0.0.0/33", "", "300.1.1.1", "10.0.0.1/8"])
def test_an_entry_that_is_neither_is_said(entry: str):
    with pytest.raises(ConfigError, match="allow has"):
        AllowList([entry])
