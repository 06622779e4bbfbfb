"""The pictures in docs/, from a finished quickstart: python -m tests.report.screenshots runs/quickstart docs [NAME...]"""

import sys
from pathlib import Path

from tests.report.chromium import Page, browser

CLIP = "(r => [r.x, r.y + scrollY, r.width, r.height])(document.querySelector('%s').getBoundingClientRect())"


def element(page: Page, selector: str, out: Path, most: int = 1200) -> None:
    """Takes one element with a margin, with a limited height."""
    x, y, width, height = page.js(CLIP % selector)
    clip = {"x": x - 8, "y": y - 8, "width": width + 16, "height": min(height + 16, most), "scale": 1}
    page.screenshot(out, clip=clip, captureBeyondViewport=True)


def report(page: Page, out: Path) -> None:
    """Takes tables, comparison, tool use and curves."""
    element(page, "main", out, most=1500)


def trajectory(page: Page, out: Path) -> None:
    """Takes a right answer of the trained policy with a crop search."""
    page.choose("outcome", "right")
    page.choose("tool", "crop")
    element(page, "article", out, most=640)


def comparison(page: Page, out: Path) -> None:
    """Takes a question that the base answers wrong without tools and the fixed workflow answers right."""
    page.choose("evaluation", "direct")
    page.choose("against", "rag")
    page.choose("change", "became right")
    page.js("document.querySelectorAll('article.pair > .side:last-child .tokenbar button')[0].click()")
    element(page, "article", out, most=900)


def phone(page: Page, out: Path) -> None:
    """Takes the list on a phone."""
    page.resize(390, 844)
    page.choose("evaluation", "rag")
    page.js("document.querySelector('#browser').scrollIntoView()")
    page.screenshot(out)


PICTURES = {"report": report, "trajectory": trajectory, "report_comparison": comparison, "report_phone": phone}


def main(run: Path, folder: Path, names: list[str]) -> None:
    """Takes the pictures."""
    with browser() as page:
        for name in names or PICTURES:
            page.open(run / "report.html", width=1120)
            PICTURES[name](page, folder / f"{name}.png")
            print(folder / f"{name}.png", (folder / f"{name}.png").stat().st_size)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
