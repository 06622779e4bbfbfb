"""The parser of every command line: options must be written out."""

from __future__ import annotations

import argparse
from typing import Any


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that takes no abbreviations; its commands' parsers are of the same kind.

    With abbreviations `--conf FILE` would do what `--config FILE` does until another option begins with the same letters, and
    `--work=DIR` would pass by the scripts that look for `--workdir`.
    """

    def __init__(self, *arguments: Any, **keywords: Any):
        super().__init__(*arguments, **{**keywords, "allow_abbrev": False})
