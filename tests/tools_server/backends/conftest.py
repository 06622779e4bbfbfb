"""The providers' key."""

import pytest

from tests.tools_server.backends.provider_asks import KEY


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TEST_KEY", KEY)
