"""The parser of every command line: options must be written out, and a mistake is one line."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that takes no abbreviations; its commands' parsers are of the same kind.

    With abbreviations `--conf FILE` would do what `--config FILE` does until another option begins with the same letters, and
    `--work=DIR` would pass by the scripts that look for `--workdir`.
    """

    def __init__(self, *arguments: Any, **keywords: Any):
        super().__init__(*arguments, **{**keywords, "allow_abbrev": False})

    def error(self, message: str) -> NoReturn:
        """Prints the mistake without the usage before it, and exits with code 2."""
        self.exit(2, f"error: {message}: see {self.prog} --help\n")
