"""Prints the requirements of extras in pyproject.toml, one per line; images install them before the code is copied.

python launch/requirements.py [--package] EXTRA...     (--package: also the package's own requirements)
"""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
wanted = [] if "--package" not in sys.argv else list(project["dependencies"])
for extra in sys.argv[1:]:
    if extra != "--package":
        if extra not in project["optional-dependencies"]:
            sys.exit(f"error: no extra '{extra}' in pyproject.toml: {', '.join(project['optional-dependencies'])}")
        wanted += project["optional-dependencies"][extra]
print("\n".join(wanted))
