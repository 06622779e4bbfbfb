"""Rules about what a run talks to: judge, search server, endpoints, keys."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple
from urllib.parse import urlsplit

from mmsearch_jax.core.addresses import is_loopback
from mmsearch_jax.core.chat_endpoint import ChatEndpoint
from mmsearch_jax.core.search_api import ROUTE_READY
from mmsearch_jax.core.settings import MissingFile, NotInstalled, Section, VariableNotSet
from mmsearch_jax.jobs.check.run import Note, Run
from mmsearch_jax.settings.learning import TOY_WORLD

_REACH_S = 1.0


class CalledService(NamedTuple):
    """A service that the run will call: the setting with its address, the address, and what answers if it is up."""

    key: str
    url: str
    probe: str


def ready(run: Run) -> Iterator[str]:
    """What the settings themselves expect: a judge, a search server, environment variables, packages."""
    if not isinstance(run.settings, Section):
        return
    for error in run.settings.not_ready():
        if isinstance(error, MissingFile):
            if run.place.is_here(error.file, error.path):
                yield str(error)
        elif isinstance(error, VariableNotSet) and run.elsewhere:
            if run.variables is None:
                yield Note(f"{error.path} names {error.variable}: the run's machines must have it (a file, a Secret)")
            elif error.variable not in run.variables:
                yield f"{error.path} names {error.variable}, which is not among the run's keys: add it to their file"
        elif run.elsewhere and isinstance(error, NotInstalled):
            yield Note(f"{error} (on the run's machines)")
        else:
            yield str(error)


def loopback(run: Run) -> Iterator[str]:
    """An address of one machine is of no use to others."""
    if not run.elsewhere and run.machines == 1:
        return
    for service in services(run):
        if is_loopback(urlsplit(service.url).hostname or ""):
            yield (
                f"{service.key} is {service.url}, which each of the run's machines looks for on itself: give an address that "
                "all of them can reach"
            )


def keys(run: Run) -> Iterator[str]:
    """Keys that a hosted endpoint usually needs."""
    present = run.variables if run.variables is not None else frozenset(os.environ)
    for path, endpoint in _endpoints(run.settings):
        local = is_loopback(urlsplit(endpoint.url).hostname or "")
        if endpoint.url.startswith("https://") and not local and endpoint.key_env and endpoint.key_env not in present:
            yield Note(
                f"{path}.key_env names {endpoint.key_env}, which is not set: export it if the endpoint needs a key"
            )


def reachable(run: Run) -> Iterator[str]:
    """Services answer (only if asked for)."""
    found = list(services(run)) if run.reach else []
    with ThreadPoolExecutor(max(1, len(found))) as pool:
        for service, why in zip(found, pool.map(_unreachable, found), strict=True):
            if why:
                yield f"{service.key}: nothing answers at {service.url} ({why}): start it, or correct the address"


def services(run: Run) -> Iterator[CalledService]:
    """Every service that the run will call."""
    for path, endpoint in _endpoints(run.settings):
        yield CalledService(f"{path}.url", endpoint.url, endpoint.url.rstrip("/") + "/models")
    if _calls_tools(run):
        for url in filter(None, (each.strip() for each in run.settings.tools.url.split(","))):
            yield CalledService("tools.url", url, url.rstrip("/") + ROUTE_READY)


def _calls_tools(run: Run) -> bool:
    if getattr(run.settings, "tools", None) is None or run.rescores:
        return False
    if run.command == "sft":
        return TOY_WORLD in run.settings.sft.data.sets
    return not (run.command == "eval" and (run.settings.eval.mode == "direct" or run.settings.eval.oracle))


def _endpoints(settings: object) -> Iterator[tuple[str, ChatEndpoint]]:
    """The chat endpoints among the settings that have an address, by path."""
    stack = [("", settings)]
    while stack:
        path, value = stack.pop()
        if isinstance(value, ChatEndpoint):
            if value.url:
                yield path, value
        elif isinstance(value, Section):
            stack += [(f"{path}.{name}" if path else name, each) for name, each in vars(value).items()]


def _unreachable(service: CalledService) -> str:
    # Requests to this machine must not go through a proxy from the environment.
    own = is_loopback(urlsplit(service.url).hostname or "")
    opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if own else []))
    try:
        with opener.open(service.probe, timeout=_REACH_S):
            return ""
    except urllib.error.HTTPError as error:
        # An answer, if only that a key is missing.
        return "" if error.code < 500 else f"HTTP {error.code}"
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))
