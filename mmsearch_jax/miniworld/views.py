"""Photo-like pictures of invented buildings, animals and backgrounds: fractal noise, gradients, shading, haze and grain.

They only need a photograph's statistics, unlike the flat colours of flags; they need not convince a person. Uses only
numpy and Pillow.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Array = np.ndarray


def noise(
    rng: np.random.Generator, size: tuple[int, int], octaves: int = 5, roughness: float = 0.55, stretch: float = 1.0
) -> Array:
    """Fractal noise, float32 [height, width] in 0..1; `stretch` > 1 stretches it horizontally."""
    width, height = size
    total = np.zeros((height, width), np.float32)
    weight = 1.0
    for octave in range(octaves):
        cells = 3 * 2**octave
        grid = rng.random((max(2, cells), max(2, int(cells / stretch)))).astype(np.float32)
        total += weight * np.asarray(Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC))
        weight *= roughness
    low, high = float(total.min()), float(total.max())
    return (total - low) / (high - low + 1e-6)


def background(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Sky, land under a sky, leaves, water or a wall."""
    kind = int(rng.integers(5))
    if kind == 0:
        pixels = _sky(rng, size)
    elif kind == 1:
        pixels = _landscape(rng, size)
    else:
        stretch = 4.0 if kind == 3 else 1.0
        pixels = _blend(noise(rng, size, 7, float(rng.uniform(0.5, 0.8)), stretch), *_tones(rng, kind))
    return _finish(rng, pixels)


def monument(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """A tower, dome, temple, pyramid, arch, wall or statue in a landscape."""
    pixels = _landscape(rng, size)
    width, height = size
    base = int(height * rng.uniform(0.78, 0.95))
    tone = np.array(
        [(196, 176, 140), (150, 140, 130), (214, 206, 190), (160, 96, 70), (120, 110, 100), (225, 215, 205)][
            int(rng.integers(6))
        ],
        np.float32,
    ) + rng.normal(0, 10, 3).astype(np.float32)
    mask = Image.new("L", size)
    shade = Image.new("L", size, 128)
    _BUILDERS[int(rng.integers(len(_BUILDERS)))](rng, ImageDraw.Draw(mask), ImageDraw.Draw(shade), width, base)
    alpha = np.asarray(mask.filter(ImageFilter.GaussianBlur(0.6)), np.float32)[..., None] / 255.0
    light = np.asarray(shade.filter(ImageFilter.GaussianBlur(0.7)), np.float32) / 128.0
    left, right = (0.72, 1.2) if rng.random() < 0.5 else (1.2, 0.72)
    slope = np.linspace(left, right, width, dtype=np.float32)[None]
    light = light * slope * (0.7 + 0.6 * noise(rng, size, 6, 0.8))
    return _finish(rng, pixels * (1 - alpha) + alpha * tone * light[..., None])


def animal(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """A four-legged, winged or swimming body with fur, spots or stripes, in front of an out-of-focus background."""
    pixels = np.asarray(Image.fromarray(_clip(_landscape(rng, size))).filter(ImageFilter.GaussianBlur(2.5)), np.float32)
    width, height = size
    tones = [
        (150, 105, 60),
        (90, 80, 75),
        (200, 180, 150),
        (60, 50, 45),
        (190, 120, 60),
        (220, 215, 210),
        (110, 120, 70),
    ]
    picked = rng.permutation(len(tones))[:2]
    tone, marking = (np.array(tones[i], np.float32) + rng.normal(0, 8, 3).astype(np.float32) for i in picked)
    mask = Image.new("L", size)
    _body(rng, ImageDraw.Draw(mask), width, height)
    soft = mask.filter(ImageFilter.GaussianBlur(1.0))
    # The blurred outline serves as a height map, so that light from above shades a rounded body.
    relief = np.asarray(mask.filter(ImageFilter.GaussianBlur(14)), np.float32) / 255.0
    light = 0.55 + 0.75 * relief - 2.2 * np.gradient(relief, axis=0) * 8
    coat = noise(rng, size, 6, 0.85, float(rng.choice([0.5, 1.0, 3.0])))
    marks = (noise(rng, size, 4, 0.5, float(rng.choice([0.3, 1.0, 4.0]))) > float(rng.uniform(0.5, 0.8)))[..., None]
    skin = np.where(marks, marking, tone) * (0.7 + 0.6 * coat)[..., None] * light[..., None]
    alpha = np.asarray(soft, np.float32)[..., None] / 255.0
    return _finish(rng, pixels * (1 - alpha) + alpha * skin)


# --- landscapes


def _sky(rng: np.random.Generator, size: tuple[int, int]) -> Array:
    """A gradient with clouds, float32 [height, width, 3]."""
    tops = [(70, 120, 190), (110, 150, 200), (150, 165, 185), (60, 70, 110), (190, 140, 120), (200, 205, 212)]
    top = np.array(tops[int(rng.integers(len(tops)))], np.float32) + rng.normal(0, 10, 3).astype(np.float32)
    bottom = 0.5 * top + 0.5 * np.array([235, 228, 215], np.float32)
    y = np.linspace(0, 1, size[1], dtype=np.float32)[:, None, None]
    clouds = np.clip((noise(rng, size, 6, 0.6, 2.0) - float(rng.uniform(0.4, 0.75))) * 3, 0, 1)[..., None]
    sky = top * (1 - y) + bottom * y
    return (
        sky * (1 - clouds)
        + clouds * np.array([238, 238, 240], np.float32) * (0.85 + 0.15 * noise(rng, size, 4))[..., None]
    )


def _landscape(rng: np.random.Generator, size: tuple[int, int]) -> Array:
    """Sky, a distant hazy ridge, and ground, float32 [height, width, 3]."""
    width, height = size
    pixels = _sky(rng, size)
    y = np.arange(height, dtype=np.float32)[:, None]
    for depth, level in ((0.6, rng.uniform(0.5, 0.7)), (0.0, rng.uniform(0.68, 0.85))):
        ridge = (level + 0.22 * (noise(rng, (width, 2), 5, 0.5)[0] - 0.5)) * height
        low, high = _tones(rng, int(rng.integers(2, 5)))
        texture = _blend(noise(rng, size, 7, 0.75, 2.0), low, high)
        haze = texture * (1 - depth) + depth * np.array([190, 200, 212], np.float32)
        pixels = np.where((y > ridge)[..., None], haze, pixels)
    return pixels


def _tones(rng: np.random.Generator, kind: int) -> tuple[Array, Array]:
    """A dark and a light tone of leaves (2), water (3), or stone and earth (4)."""
    pairs = {
        2: [((25, 45, 18), (130, 160, 80)), ((40, 50, 25), (170, 165, 95)), ((60, 40, 20), (190, 130, 60))],
        3: [((20, 50, 75), (120, 165, 185)), ((30, 60, 60), (150, 175, 165)), ((40, 45, 60), (170, 175, 190))],
        4: [((80, 70, 60), (190, 175, 155)), ((60, 58, 58), (165, 162, 160)), ((120, 95, 65), (215, 190, 150))],
    }
    dark, bright = pairs[kind][int(rng.integers(3))]
    shift = rng.normal(0, 8, 3).astype(np.float32)
    return np.array(dark, np.float32) + shift, np.array(bright, np.float32) + shift


def _blend(share: Array, low: Array, high: Array) -> Array:
    return low + share[..., None] * (high - low)


def _finish(rng: np.random.Generator, pixels: Array) -> Image.Image:
    """The pixels as an 8-bit image, with grain and a slight vignette."""
    height, width = pixels.shape[:2]
    x, y = (np.linspace(-1, 1, width, dtype=np.float32)[None], np.linspace(-1, 1, height, dtype=np.float32)[:, None])
    vignette = 1.0 - float(rng.uniform(0.0, 0.22)) * (x * x + y * y) / 2
    # uint8 noise is several times cheaper than normal deviates and looks the same once it is JPEG.
    grain = rng.integers(-5, 6, (height, width, 1), dtype=np.int8).astype(np.float32)
    return Image.fromarray(_clip(pixels * vignette[..., None] + grain))


def _clip(pixels: Array) -> Array:
    return np.clip(pixels, 0, 255).astype(np.uint8)


# --- buildings: each function draws an outline in `mask`, and darker or lighter parts in `shade` (128 is neutral)


def _tower(
    rng: np.random.Generator, mask: ImageDraw.ImageDraw, shade: ImageDraw.ImageDraw, width: int, base: int
) -> None:
    x, half, top = (width * rng.uniform(0.35, 0.65), width * rng.uniform(0.06, 0.13), base * rng.uniform(0.1, 0.3))
    taper = float(rng.uniform(0.3, 1.0))
    mask.polygon([(x - half, base), (x - half * taper, top), (x + half * taper, top), (x + half, base)], 255)
    if rng.random() < 0.7:
        mask.polygon(
            [(x - half * taper * 1.2, top), (x, top - base * rng.uniform(0.06, 0.2)), (x + half * taper * 1.2, top)],
            255,
        )
    floors = int(rng.integers(3, 9))
    for k in range(floors):
        y = top + (base - top) * (k + 0.4) / floors
        for dx in (-0.4, 0.0, 0.4):
            cx = x + dx * half * (taper + (1 - taper) * (k + 0.5) / floors)
            shade.rectangle((cx - half * 0.1, y, cx + half * 0.1, y + base * 0.05), 60)
        shade.line((x - half, y - 4, x + half, y - 4), 96, 2)


def _temple(
    rng: np.random.Generator, mask: ImageDraw.ImageDraw, shade: ImageDraw.ImageDraw, width: int, base: int
) -> None:
    left, right = width * rng.uniform(0.08, 0.25), width * rng.uniform(0.75, 0.92)
    top = base * rng.uniform(0.35, 0.55)
    mask.rectangle((left, top, right, base), 255)
    if rng.random() < 0.7:
        mask.polygon(
            [(left - 6, top), ((left + right) / 2, top - base * rng.uniform(0.1, 0.25)), (right + 6, top)], 255
        )
    columns = int(rng.integers(4, 10))
    step = (right - left) / columns
    for k in range(columns):
        x = left + step * (k + 0.5)
        shade.rectangle(
            (x - step * 0.28, top + base * 0.08, x + step * 0.28, base - base * 0.05), int(rng.integers(40, 70))
        )
        if rng.random() < 0.5:
            shade.ellipse((x - step * 0.28, top + base * 0.03, x + step * 0.28, top + base * 0.13), 50)
    shade.rectangle((left, base - base * 0.05, right, base), 150)


def _dome(
    rng: np.random.Generator, mask: ImageDraw.ImageDraw, shade: ImageDraw.ImageDraw, width: int, base: int
) -> None:
    _temple(rng, mask, shade, width, base)
    x, r, y = width / 2, width * rng.uniform(0.1, 0.19), base * rng.uniform(0.38, 0.5)
    mask.ellipse((x - r, y - r * rng.uniform(1.0, 1.5), x + r, y + r), 255)
    mask.rectangle((x - 2, y - r * 1.9, x + 2, y), 255)
    for dx in (-0.5, 0.0, 0.5):
        shade.line((x + dx * r, y - r, x + dx * r * 1.5, y + r * 0.4), 100, 2)
    for side in (-1, 1):
        if rng.random() < 0.6:
            mx = x + side * width * 0.36
            mask.rectangle((mx - 6, base * 0.22, mx + 6, base), 255)
            mask.ellipse((mx - 9, base * 0.16, mx + 9, base * 0.26), 255)


def _pyramid(
    rng: np.random.Generator, mask: ImageDraw.ImageDraw, shade: ImageDraw.ImageDraw, width: int, base: int
) -> None:
    x, half, top = width * rng.uniform(0.4, 0.6), width * rng.uniform(0.3, 0.45), base * rng.uniform(0.2, 0.4)
    steps = int(rng.choice([1, 5, 8]))
    for k in range(steps):
        y0, y1 = top + (base - top) * k / steps, top + (base - top) * (k + 1) / steps
        inner = half * k / steps if steps > 1 else 0
        outer = half * (k + 1) / steps
        lower = outer if steps == 1 else (inner + outer) / 2
        mask.polygon([(x - max(inner, 8), y0), (x + max(inner, 8), y0), (x + lower, y1), (x - lower, y1)], 255)
        shade.line((x - outer, y1, x + outer, y1), 80, 3)
    shade.polygon([(x, top), (x + half, base), (x + half * 0.2, base)], 78)


def _arch(
    rng: np.random.Generator, mask: ImageDraw.ImageDraw, shade: ImageDraw.ImageDraw, width: int, base: int
) -> None:
    half, top = width * rng.uniform(0.2, 0.42), base * rng.uniform(0.2, 0.45)
    x, openings = width / 2, int(rng.choice([1, 3, 5]))
    mask.rectangle((x - half, top, x + half, base), 255)
    step = 2 * half / openings
    for k in range(openings):
        # The limit keeps the arch of a single wide opening above the ground.
        cx, r = x - half + step * (k + 0.5), min(step * 0.33, (base - top) * 0.55)
        y = top + (base - top) * 0.35 + r
        mask.rectangle((cx - r, y, cx + r, base), 0)
        mask.ellipse((cx - r, y - r, cx + r, y + r), 0)
    shade.rectangle((x - half, top, x + half, top + base * 0.05), 170)
    shade.line((x - half, top + base * 0.12, x + half, top + base * 0.12), 80, 3)


def _statue(
    rng: np.random.Generator, mask: ImageDraw.ImageDraw, shade: ImageDraw.ImageDraw, width: int, base: int
) -> None:
    x, plinth, top = (width * rng.uniform(0.4, 0.6), width * rng.uniform(0.1, 0.18), base * rng.uniform(0.55, 0.75))
    mask.rectangle((x - plinth, top, x + plinth, base), 255)
    shade.rectangle((x - plinth, top, x + plinth, top + 8), 165)
    height, half = top - base * rng.uniform(0.08, 0.2), plinth * rng.uniform(0.4, 0.75)
    crown = top - height
    mask.polygon(
        [
            (x - half, top),
            (x - half * 0.6, crown + height * 0.25),
            (x + half * 0.6, crown + height * 0.25),
            (x + half, top),
        ],
        255,
    )
    mask.ellipse((x - half * 0.4, crown, x + half * 0.4, crown + height * 0.25), 255)
    for side in (-1, 1):
        reach, lift = half * rng.uniform(0.8, 2.2), height * rng.uniform(-0.35, 0.4)
        shoulder = crown + height * 0.32
        mask.line((x + side * half * 0.4, shoulder, x + side * reach, shoulder + lift), 255, max(6, int(half * 0.35)))
    for _ in range(5):
        fold = x + half * rng.uniform(-0.7, 0.7)
        shade.line((fold, crown + height * 0.35, fold + half * rng.uniform(-0.2, 0.2), top), 85, 3)


_BUILDERS = (_tower, _temple, _dome, _pyramid, _arch, _statue)


def _body(rng: np.random.Generator, mask: ImageDraw.ImageDraw, width: int, height: int) -> None:
    """The outline of a body that faces left or right at random."""
    side = 1 if rng.random() < 0.5 else -1
    x, y = width * rng.uniform(0.42, 0.58), height * rng.uniform(0.45, 0.6)
    long, tall = width * rng.uniform(0.16, 0.3), height * rng.uniform(0.13, 0.24)
    mask.ellipse((x - long, y - tall, x + long, y + tall), 255)
    neck = (x + side * long * rng.uniform(0.7, 0.95), y - tall * rng.uniform(0.2, 0.6))
    head = (neck[0] + side * long * rng.uniform(0.1, 0.5), neck[1] - tall * rng.uniform(0.0, 1.8))
    mask.line((*neck, *head), 255, int(tall * rng.uniform(0.5, 0.9)))
    r = tall * rng.uniform(0.4, 0.65)
    mask.ellipse((head[0] - r, head[1] - r, head[0] + r, head[1] + r), 255)
    snout = (head[0] + side * r * rng.uniform(1.0, 2.2), head[1] + r * rng.uniform(0.0, 0.6))
    mask.polygon([(head[0], head[1] - r * 0.7), snout, (head[0], head[1] + r * 0.9)], 255)
    for ear in (-0.5, 0.4):
        ear_tip = (head[0] + ear * r, head[1] - r * rng.uniform(1.1, 1.9))
        mask.polygon(
            [(head[0] + (ear - 0.3) * r, head[1] - r * 0.6), ear_tip, (head[0] + (ear + 0.3) * r, head[1] - r * 0.6)],
            255,
        )
    form = rng.random()
    if form < 0.65:
        floor = min(height * 0.95, y + tall * rng.uniform(1.7, 2.8))
        for leg in (-0.75, -0.5, 0.45, 0.75):
            lx = x + leg * long
            mask.line((lx, y, lx + rng.uniform(-8, 8), floor), 255, max(6, int(tall * rng.uniform(0.25, 0.4))))
    elif form < 0.85:
        mask.polygon(
            [
                (x - long * 0.5, y),
                (x - side * long * 1.3, y - tall * rng.uniform(1.5, 3.0)),
                (x + long * 0.4, y - tall * 0.3),
            ],
            255,
        )
    tail = (x - side * long * rng.uniform(1.2, 1.7), y + tall * rng.uniform(-1.2, 0.9))
    mask.line((x - side * long * 0.8, y, *tail), 255, max(4, int(tall * rng.uniform(0.12, 0.4))))
