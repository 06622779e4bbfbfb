"""Every setting of the server: set by its path, checked, and reported with its path before anything starts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmsearch_jax.core.config_files import load
from mmsearch_jax.core.settings import Bounds, Section, SettingError, build, leaves, plain, types_of
from tools_server.backends.providers import IMAGE, TEXT
from tools_server.settings.server import ServerSettings
from tools_server.settings.sources import WebBackendSettings

LEAVES = list(leaves(ServerSettings()))
PATHS = [path for path, *_ in LEAVES]
ROOT = Path(__file__).parents[2]
# Setting -> other settings that must be set too, because their defaults are not valid together with its values.
OTHERS = {
    "image.backends": {"publisher.kind": "blobs", "publisher.public_url": "http://x"},
    "publisher.kind": {"publisher.public_url": "http://x", "publisher.bucket_url": "s3://b"},
    "grounder.kind": {"grounder.url": "http://x", "grounder.model": "m"},
    "summariser.kind": {"summariser.url": "http://x", "summariser.model": "m"},
    "summariser.url": {"summariser.model": "m"},
}


def sound(path: str, value: Any, bounds: Bounds) -> Any:
    """A valid value other than `value`."""
    if bounds.one_of:
        words = [word for word in bounds.one_of if word not in ("", value)]
        return tuple(words) if isinstance(value, tuple) else words[-1]
    if isinstance(value, tuple):
        return ("10.0.0.0/8",) if path == "reader.allow" else (8080,)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        near = value / 2 if isinstance(value, float) and value else value + 1
        return near if not bounds.problem(near) else value - 1
    return "http://example.org" if path.endswith("url") else "something"


def unsound(bounds: Bounds) -> Iterator[Any]:
    """Values outside the bounds."""
    if bounds.one_of:
        yield "nonsense"
    if bounds.at_least is not None:
        yield bounds.at_least - 1
    if bounds.above is not None:
        yield bounds.above
    if bounds.at_most is not None:
        yield bounds.at_most + 1
    if bounds.below is not None:
        yield bounds.below


def override(path: str, value: Any) -> str:
    return f"--config.{path}={value}"


def value_at(settings: Any, path: str) -> Any:
    for name in path.split("."):
        settings = settings[name] if isinstance(settings, dict) else getattr(settings, name)
    return settings


@pytest.mark.parametrize(
    ("path", "field", "value"), [(path, field, value) for path, field, _, value in LEAVES], ids=PATHS
)
def test_every_setting_is_set_by_its_path(path: str, field: Any, value: Any):
    wanted = sound(path, value, field.metadata["bounds"])
    others = [override(*other) for other in OTHERS.get(path, {}).items()]
    loaded = load(ServerSettings, None, [*others, override(path, wanted)])
    assert wanted != value
    assert value_at(loaded.settings, path) == wanted
    assert loaded.sources[path] == "command line"


@pytest.mark.parametrize(("path", "hint"), [(path, hint) for path, _, hint, _ in LEAVES], ids=PATHS)
def test_a_value_of_another_type_is_refused_by_its_path(path: str, hint: Any):
    wrong: Any = 3 if hint is str else "some text"
    tree = plain(ServerSettings())
    *parents, last = path.split(".")
    section = tree
    for name in parents:
        section = section[name]
    section[last] = wrong
    with pytest.raises(SettingError) as caught:
        build(ServerSettings, tree)
    assert caught.value.path == path
    # A tuple of words may be written as words with commas between them.
    if hint not in (str, tuple[str, ...]):
        with pytest.raises(SettingError) as caught:
            load(ServerSettings, None, [override(path, wrong)])
        assert caught.value.path == path


UNSOUND = [
    (path, (wrong,) if isinstance(value, tuple) else type(value)(wrong))
    for path, field, _, value in LEAVES
    for wrong in unsound(field.metadata["bounds"])
]


@pytest.mark.parametrize(("path", "wrong"), UNSOUND, ids=[f"{path}={wrong}" for path, wrong in UNSOUND])
def test_a_value_out_of_bounds_is_refused_by_its_path(path: str, wrong: Any):
    with pytest.raises(SettingError) as caught:
        load(ServerSettings, None, [override(path, wrong)])
    assert caught.value.path == path
    assert str(caught.value).startswith(f"{path} ")


def test_every_number_has_bounds():
    for path, field, hint, _ in LEAVES:
        bounds: Bounds = field.metadata["bounds"]
        if hint in (int, float):
            assert (bounds.at_least, bounds.above) != (None, None), path


def test_every_setting_and_section_has_a_line_of_documentation():
    def check(section: type[Section]) -> None:
        assert section.__doc__
        for name, field in section.__dataclass_fields__.items():
            assert field.metadata["doc"], f"{section.__name__}.{name}"
            hint = types_of(section)[name]
            if isinstance(hint, type) and issubclass(hint, Section):
                check(hint)

    check(ServerSettings)
    check(WebBackendSettings)


def test_the_backends_are_the_providers_with_their_defaults():
    backends = ServerSettings().backends
    assert set(backends) == {*TEXT, *IMAGE}
    for name, provider in {**TEXT, **IMAGE}.items():
        own = backends[name]
        assert (own.url, own.key_env, own.cost_usd) == (provider.url, provider.key_env, provider.cost_usd)
        assert own.calls_per_s == provider.calls_per_s


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({"backends": {"gogle": {"url": "http://x", "key_env": "", "cost_usd": 0.0}}}, "backends.gogle"),
        ({"backends": {"serper": {"url": "http://x", "key_env": ""}}}, "backends.serper.cost_usd"),
        ({"backends": {}, "text": {"backends": ("serper",)}}, "backends.serper"),
        ({"image": {"backends": ("serpapi_lens",)}}, "publisher.kind"),
        ({"publisher": {"kind": "blobs"}}, "publisher.public_url"),
        ({"publisher": {"kind": "bucket"}}, "publisher.bucket_url"),
        ({"summariser": {"kind": "model"}}, "summariser.url"),
        ({"grounder": {"kind": "http"}}, "grounder.url"),
        ({"grounder": {"kind": "chat", "url": "http://x"}}, "grounder.model"),
        ({"reader": {"jina": {"url": "r.jina.ai"}}}, "reader.jina.url"),
        ({"reader": {"allow": ("10.0.0.0/99",)}}, "reader.allow"),
    ],
)
def test_values_that_contradict_one_another_are_refused_by_their_path(values: dict[str, Any], path: str):
    with pytest.raises(SettingError) as caught:
        build(ServerSettings, values)
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({}, "corpus"),
        ({"corpus": "x", "token_env": "NO_SUCH"}, "token_env"),
        ({"corpus": "x", "text": {"backends": ("brave",)}}, "backends.brave.key_env"),
        ({"corpus": "x", "image": {"backends": ("google_vision",)}}, "backends.google_vision.key_env"),
        ({"corpus": "x", "cache": {"redis_url_env": "NO_SUCH"}}, "cache.redis_url_env"),
        ({"corpus": "x", "reader": {"kind": "jina", "jina": {"key_env": "NO_SUCH"}}}, "reader.jina.key_env"),
        ({"corpus": "x", "grounder": {"kind": "onnx", "model": "nowhere"}}, "grounder.model"),
        ({"corpus": "x", "grounder": {"kind": "http", "url": "http://x", "key_env": "NO_SUCH"}}, "grounder.key_env"),
    ],
)
def test_what_this_machine_lacks_is_named_by_the_setting_that_needs_it(
    values: dict[str, Any], path: str, monkeypatch: pytest.MonkeyPatch
):
    for provider in (TEXT["brave"], IMAGE["google_vision"]):
        monkeypatch.delenv(provider.key_env, raising=False)
    settings = build(ServerSettings, values)
    with pytest.raises(SettingError) as caught:
        settings.require_ready()
    assert caught.value.path == path


def test_an_empty_key_variable_of_a_provider_that_needs_a_key_is_refused():
    values = plain(ServerSettings())
    values["text"], values["image"] = {"backends": ("serper",)}, {"backends": ()}
    values["backends"]["serper"]["key_env"] = ""
    with pytest.raises(SettingError, match=r"backends\.serper\.key_env is empty, .* such as SERPER_API_KEY"):
        build(ServerSettings, values).require_ready()


def test_the_arguments_win_over_the_file_and_the_overrides(tmp_path: Path):
    result = _run("--config", "configs/tools/searxng.py", "--config.port=1", "--port", "2", "--print-config")
    lines = result.stdout.splitlines()
    assert "port = 2  [command line]" in lines
    assert "cache.mode = 'live'  [file]" in lines
    assert "budget.max_calls = 0  [default]" in lines
    assert result.returncode == 0


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.reader.max_redirects=-1", "error: reader.max_redirects is -1: must be at least 0"),
        ("--config.limits.deadline_s=soon", "error: limits.deadline_s takes a number, got 'soon'"),
        ("--config.cache.mod=live", "error: unknown setting 'cache.mod': did you mean 'cache.mode'?"),
        ("--port=70000", "error: port is 70000: must be at most 65535"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(argument: str, message: str):
    result = _run(argument)
    assert (result.returncode, result.stdout, result.stderr) == (2, "", f"{message}\n")


def test_checking_the_settings_loads_no_part_of_the_server():
    code = (
        "import sys, tools_server.settings.server as s; s.ServerSettings(); "
        "print([m for m in ('numpy', 'PIL', 'scipy', 'lxml', 'jax', 'tools_server.assembly') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "[]"


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools_server", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT, env=environment)
