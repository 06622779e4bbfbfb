"""The files about the package: everything that they name exists, and versions agree."""

import re
import tomllib

import pytest
import yaml

from mmsearch_jax import __version__
from mmsearch_jax.core.bundled import REPOSITORY

assert REPOSITORY is not None
_PATH = re.compile(r"`((?:mmsearch_jax|tools_server|configs|tests|benchmarks|docs|\.ci)/[\w./-]*|[A-Z]+\.(?:md|cff))`")


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md"])
def test_every_file_that_a_page_names_is_there(page):
    named = set(_PATH.findall((REPOSITORY / page).read_text(encoding="utf-8")))
    assert len(named) > 5
    assert not [name for name in sorted(named) if not (REPOSITORY / name).exists()]


def test_every_target_that_contributors_are_told_of_is_in_the_makefile():
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    told = set(re.findall(r"`make ([a-z-]+)`", text)) | set(re.findall(r"`(test-[a-z]+)`", text))
    assert {"test", "test-wheel", "check"} <= told
    assert not [target for target in sorted(told) if not re.search(rf"^{target}:", makefile, re.MULTILINE)]


def test_the_version_is_the_same_wherever_it_stands():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert str(citation["version"]) == project["version"] == __version__
    assert citation["references"][0]["url"].endswith("2510.12801")
