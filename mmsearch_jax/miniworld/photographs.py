"""Photographs of monuments and animals, each with a paragraph, from GCompris' data (Debian `gcompris-qt-data`).

Reads the Qt resource archive, the QML boards with the paragraphs, and the README with author and licence of every
picture. Tables give the country, city, date and range that each paragraph names. Knows nothing of flags.
"""

from __future__ import annotations

import dataclasses
import re
import struct
import zlib
from pathlib import Path

from mmsearch_jax.core.errors import DataError

ACTIVITIES = {"explore_monuments": "monument", "explore_world_animals": "animal", "explore_farm_animals": "animal"}
"""Activity (the archive's name) -> kind of entity."""


@dataclasses.dataclass(frozen=True)
class Photograph:
    """One picture and its package's information about it; `iso` is the country of a monument, else empty."""

    key: str
    kind: str
    name: str
    text: str
    image: bytes
    author: str
    licence: str
    source: str
    iso: str
    facts: dict[str, str]


_BOARD_COUNTRY = {"egypt": "eg", "france": "fr", "germany": "de", "india": "in", "usa": "us"}
_WONDERS = {
    "chichenItza": "mx",
    "christTheRedeemer": "br",
    "colosseum": "it",
    "greatWallofChina": "cn",
    "machuPicchu": "pe",
    "petra": "jo",
    "tajMahal": "in",
}
_NAMES = {
    "cabrillo": "Cabrillo National Monument",
    "navajo": "Navajo National Monument",
    "greatWallofChina": "Great Wall of China",
    "panda": "Giant panda",
}
# These tables hold only what the picture's own paragraph or name says.
_CITY = {
    "colosseum": "Rome",
    "christTheRedeemer": "Rio de Janeiro",
    "tajMahal": "Agra",
    "goldenTemple": "Amritsar",
    "hawaMahal": "Jaipur",
    "gatewayofIndia": "Mumbai",
    "greatStupa": "Sanchi",
    "mysorePalace": "Mysore",
    "charminar": "Hyderabad",
    "victoriaMemorial": "Kolkata",
    "rangGhar": "Rangpur",
    "qutubMinar": "Delhi",
    "citedeCarcassonne": "Carcassonne",
    "reimsCathedral": "Reims",
    "arlesAmphitheater": "Arles",
    "palaisdesPapes": "Avignon",
    "eiffelTower": "Paris",
    "neuschwansteinCastle": "Füssen",
    "trierImperialBaths": "Trier",
    "brandenburgGate": "Berlin",
    "berlinCathedral": "Berlin",
    "schwerinPalace": "Schwerin",
    "aulaPalatina": "Trier",
    "wormsCathedral": "Worms",
    "cabrillo": "San Diego",
    "castillodeSanMarcos": "St. Augustine",
    "castleClinton": "New York",
    "statueofLiberty": "New York City",
    "fortSumter": "Charleston",
    "greatPyramidOfGiza": "Giza",
    "bentPyramid": "Dahshur",
}
_BUILT = {
    "petra": "312 BC",
    "tajMahal": "1632",
    "gatewayofIndia": "1924",
    "greatStupa": "3rd century BCE",
    "ajantaCave": "2nd century BCE",
    "konarkSunTemple": "13th century",
    "mysorePalace": "14th century",
    "charminar": "1591",
    "arlesAmphitheater": "first century BC",
    "eiffelTower": "1889",
    "brandenburgGate": "18th century",
    "schwerinPalace": "1857",
    "wormsCathedral": "1181",
    "castillodeSanMarcos": "1695",
    "statueofLiberty": "1886",
}
_RANGE = {
    "giraffe": "Africa",
    "bison": "North America",
    "narwhal": "Arctic Ocean",
    "chameleon": "Africa and Madagascar",
    "kangaroo": "Australia",
    "scarlet_macaw": "South America",
    "dragon": "Indonesian islands",
    "koala": "eastern Australia",
    "lemur": "southwest Madagascar",
    "panda": "central China",
    "crocodile": "large tropical rivers",
}


def read_photographs(folder: Path) -> list[Photograph]:
    """All photographs of the archives under `folder`.

    Raises:
      DataError: an archive is missing or is not a Qt resource archive; the message names it.
    """
    photographs: list[Photograph] = []
    for activity, kind in ACTIVITIES.items():
        archive = next(iter(sorted(folder.rglob(f"{activity}.rcc"))), None)
        if archive is None:
            raise DataError(f"no {activity}.rcc under {folder}: give the unpacked gcompris-qt-data package")
        photographs += _photographs(unpack(archive), kind)
    return photographs


def unpack(archive: Path) -> dict[str, bytes]:
    """The files of a Qt resource archive: path -> content.

    Raises:
      DataError: the file is not a Qt resource archive, or it uses a compression other than zlib.
    """
    data = archive.read_bytes()
    if data[:4] != b"qres":
        raise DataError(f"{archive} is not a Qt resource archive: it does not begin with 'qres'")
    version, tree, contents, names = struct.unpack_from(">IIII", data, 4)
    node_size = 22 if version >= 2 else 14
    files: dict[str, bytes] = {}

    def name_at(offset: int) -> str:
        (length,) = struct.unpack_from(">H", data, names + offset)
        return data[names + offset + 6 : names + offset + 6 + 2 * length].decode("utf-16-be")

    def walk(node: int, path: str) -> None:
        start = tree + node * node_size
        name_offset, flags = struct.unpack_from(">IH", data, start)
        here = f"{path}/{name_at(name_offset)}" if node else path
        if flags & 2:
            count, first = struct.unpack_from(">II", data, start + 6)
            for child in range(first, first + count):
                walk(child, here)
            return
        (offset,) = struct.unpack_from(">I", data, start + 10)
        (length,) = struct.unpack_from(">I", data, contents + offset)
        raw = data[contents + offset + 4 : contents + offset + 4 + length]
        if flags & 4:
            raise DataError(f"{archive}: {here} is compressed with zstd, which this reader does not support")
        files[here] = zlib.decompress(raw[4:]) if flags & 1 else raw

    walk(0, "")
    return files


def _photographs(files: dict[str, bytes], kind: str) -> list[Photograph]:
    credits_by_key = _credits(
        next(content for path, content in files.items() if path.endswith("/README")).decode("utf-8")
    )
    boards = "\n".join(files[path].decode("utf-8") for path in sorted(files) if re.search(r"/board\d+\.qml$", path))
    texts: dict[str, tuple[str, str]] = {}
    for entry in re.findall(r"\{[^{}]*\}", boards):
        title, text, image = (re.search(p, entry) for p in (_quoted("title"), _quoted("text"), r"([\w]+)\.webp"))
        if title and text and image:
            texts.setdefault(image[1], (title[1], text[1].replace('\\"', '"')))
    found = []
    for path in sorted(path for path in files if path.endswith(".webp")):
        key, board = Path(path).stem, Path(path).parent.name
        if key not in texts or key not in credits_by_key:
            continue
        title, text = texts[key]
        author, licence, source = credits_by_key[key]
        facts = {"city": _CITY.get(key), "built": _BUILT.get(key), "range": _RANGE.get(key)}
        found.append(
            Photograph(
                key=key,
                kind=kind,
                name=_NAMES.get(key, title.split(", ")[0]),
                text=text,
                image=files[path],
                author=author,
                licence=licence,
                source=source,
                iso=_BOARD_COUNTRY.get(board) or _WONDERS.get(key, ""),
                facts={name: value for name, value in facts.items() if value},
            )
        )
    return found


def _quoted(field: str) -> str:
    return rf'"{field}": qsTr\("((?:[^"\\]|\\.)*)"\)'


def _credits(readme: str) -> dict[str, tuple[str, str, str]]:
    """Picture's key -> author, licence, source, from the README's blocks."""
    credits_by_key = {}
    for block in re.split(r"\n\s*\n", readme):
        fields = dict(re.findall(r"^(Copyright|License|Source): *(.+)$", block, re.MULTILINE))
        for key in re.findall(r"(\w+)\.webp", block.partition("Files:")[2]):
            key = {"audaPalatina": "aulaPalatina"}.get(key, key)
            credits_by_key[key] = (fields["Copyright"], fields["License"], fields.get("Source", ""))
    return credits_by_key
