"""Every public class name is unique over both packages."""

from __future__ import annotations

import ast
import collections
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("mmsearch_jax", "tools_server")


def test_no_public_class_name_is_used_twice():
    places = collections.defaultdict(list)
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for statement in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(statement, ast.ClassDef) and not statement.name.startswith("_"):
                    places[statement.name].append(str(path.relative_to(ROOT)))
    assert len(places) > 200
    assert {name: files for name, files in places.items() if len(files) > 1} == {}
