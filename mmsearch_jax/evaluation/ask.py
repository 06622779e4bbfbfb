"""One image and one question: prints the episode while it runs.

Text of the policy and of pages is printed as plain text, never as markup or as a terminal's control sequence.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.text import Text

from mmsearch_jax.core.protocol import ImageSearch, Invalid, TextSearch
from mmsearch_jax.core.trajectory import Status, Trajectory, Turn
from mmsearch_jax.evaluation.terminal_pictures import escape_sequence, protocol_of

# All control characters except line breaks and tabs.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class EpisodePrinter:
    """Prints the new parts of a trajectory at each call.

    Args:
      image: the question's image, from which crops are cut; None: no crops are saved.
      crops: folder for the crops.
      environment: environment variables, which tell whether the terminal can show pictures.
    """

    def __init__(
        self,
        console: Console | None = None,
        image: Image.Image | None = None,
        crops: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ):
        self._console = console or Console()
        self._image, self._crops = image, crops
        self._pictures = protocol_of(os.environ if environment is None else environment)
        self._turns = self._observations = 0
        self._live: Live | None = None

    def writing(self, text: str) -> None:
        """Shows the turn in progress until it is finished; only on terminals."""
        if not self._console.is_terminal or not text:
            return
        if self._live is None:
            self._live = Live(console=self._console, transient=True, auto_refresh=False)
            self._live.start()
        self._live.update(Text(_plain(text), style="dim italic"), refresh=True)

    def update(self, trajectory: Trajectory) -> None:
        """Prints the turns and observations that were not printed yet, and finally the answer."""
        for number, turn in enumerate(trajectory.turns, 1):
            if number > self._turns:
                self._turns = number
                self._stop_writing()
                self._print_turn(number, turn)
            # A search's result arrives after its turn.
            told = turn.observation is not None or trajectory.status != Status.RUNNING
            if number > self._observations and told:
                self._observations = number
                self._print_outcome(number, turn)
        if trajectory.status != Status.RUNNING:
            self._stop_writing()
            self._print_ending(trajectory)

    def _stop_writing(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _print_turn(self, number: int, turn: Turn) -> None:
        if turn.reason:
            self._console.print(f"[dim]turn {number}, reason[/dim] {_shown(turn.reason)}")
        match turn.action:
            case TextSearch(query):
                self._console.print(f"[bold cyan]text_search[/bold cyan] {_shown(query)}")
            case ImageSearch(expression):
                self._console.print(f"[bold cyan]image_search[/bold cyan] {_shown(expression or 'the whole image')}")
            case Invalid():
                self._console.print(f"[red]{_shown(turn.text)}[/red]")

    def _print_outcome(self, number: int, turn: Turn) -> None:
        tool = turn.tool
        if tool is not None:
            facts = ["refused" if tool.refused else "", f"found at {tool.box}" if tool.box else ""]
            facts += [f"{tool.elapsed_ms:.0f} ms" if tool.elapsed_ms else "", tool.error or ""]
            if any(facts):
                self._console.print(f"[dim]{_shown(', '.join(filter(None, facts)))}[/dim]")
            if tool.box is not None:
                self._print_crop(number, tool.box)
        if turn.observation is not None:
            self._console.print(Panel(_shown(turn.observation), border_style="dim"))

    def _print_crop(self, number: int, box: tuple[int, int, int, int]) -> None:
        if self._image is None or self._crops is None:
            return
        crop, path = self._image.crop(box), self._crops / f"turn{number}.png"
        self._crops.mkdir(parents=True, exist_ok=True)
        crop.save(path)
        self._console.print(f"[dim]crop[/dim] {escape(str(path))}", soft_wrap=True)
        if self._pictures is not None and self._console.is_terminal:
            self._console.file.write(escape_sequence(crop, self._pictures) + "\n")

    def _print_ending(self, trajectory: Trajectory) -> None:
        if trajectory.answer is not None:
            self._console.print(f"[bold green]answer[/bold green] {_shown(trajectory.answer)}")
            return
        why = f": {_shown(trajectory.error)}" if trajectory.error else ""
        self._console.print(f"[red]no answer[/red] ({trajectory.status}{why})")


def _plain(text: str) -> str:
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def _shown(text: str) -> str:
    return escape(_plain(text))
