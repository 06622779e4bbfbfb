"""One image and one question: runs the episode and prints it turn by turn."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel

from mmsearch_jax.protocol import Answer
from mmsearch_jax.trajectory import Trajectory


def print_episode(trajectory: Trajectory, console: Console | None = None) -> None:
    """Prints what the policy thought, searched, read and answered. All of it is shown as text, never as markup."""
    console = console or Console()
    for number, turn in enumerate(trajectory.turns, 1):
        if turn.reason:
            console.print(f"[dim]turn {number}, reason[/dim] {escape(turn.reason)}")
        if turn.tool is not None:
            wanted = turn.tool.query or "the whole image"
            box = f" at {turn.tool.box}" if turn.tool.box else ""
            console.print(f"[bold cyan]{turn.tool.tool}[/bold cyan] {escape(wanted)}{box}")
        if turn.observation is not None:
            console.print(Panel(escape(turn.observation), border_style="dim"))
        elif not isinstance(turn.action, Answer) and turn.tool is None:
            console.print(f"[red]{escape(turn.text)}[/red]")
    if trajectory.answer is not None:
        console.print(f"[bold green]answer[/bold green] {escape(trajectory.answer)}")
    else:
        console.print(
            f"[red]no answer[/red] ({trajectory.status}{f': {escape(trajectory.error)}' if trajectory.error else ''})"
        )
