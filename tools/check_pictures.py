"""Pictures to fit and to judge `xrv check` with: radiographs, simulated ones, and other things.

Everything is grey, float32, bright where a film is bright. Patients, photographs and seeds fall
into a part for the fit and a part for the evaluation that never meet.
"""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIDE = 128
FIT_SEED, TEST_SEED = 1, 2

# Photographs, drawings and screenshots that packages carry for their tests and examples.
PACKAGES = {
    "skimage": "data",
    "sklearn": "datasets/images",
    "matplotlib": "mpl-data/sample_data",
    "networkx": "drawing/tests/baseline",
}


def films(folder: Path) -> list[Path]:
    """The radiographs of the small copy of ChestX-ray14, by name."""
    return sorted((folder / "images-320").glob("*.jpg"))


def for_fit(film: Path) -> bool:
    """Whether the patient of a film belongs to the fit: three of five do."""
    return int(film.name[:8]) % 5 < 3


def photographs(folders: list[Path]) -> tuple[list[Path], list[Path]]:
    """Pictures of anything else, for the fit and for the evaluation; likes stay together."""
    found = list(folders)
    for package, inside in PACKAGES.items():
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            found.append(Path(spec.origin).parent / inside)
    files = {
        path.name: path
        for folder in found
        for path in sorted(folder.glob("*"))
        if path.suffix in (".png", ".jpg") and path.stat().st_size > 4000
    }
    parts: tuple[list[Path], list[Path]] = ([], [])
    groups = itertools.groupby(sorted(files.values(), key=lambda p: p.name), lambda p: p.name[:6])
    for index, (_, likes) in enumerate(groups):
        parts[index % 2].extend(likes)
    return parts


def grey_of(path: Path) -> np.ndarray:
    """Any picture as grey, shape (H, W)."""
    with Image.open(path) as image:
        return np.asarray(image.convert("L"), np.float32)


def square(picture: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
    """The centre square of a picture, or one at random, at SIDE pixels."""
    height, width = picture.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    if rng is not None:
        side = int(side * rng.uniform(0.35, 1))
        top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
    part = Image.fromarray(np.ascontiguousarray(picture[top : top + side, left : left + side]))
    return np.asarray(part.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)


def simulated(count: int, seed: int, views: tuple[str, ...]) -> np.ndarray:
    """Simulated radiographs, shape (count, SIDE, SIDE)."""
    from torchxrayvision.phantom import SITES, simulate

    return np.stack(
        [
            square(
                simulate(i, seed=seed, size=160, site=SITES[i % len(SITES)], views=views).image[0]
            )
            for i in range(count)
        ]
    )


def varied(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same film as another table, detector or archive might have given it."""
    low, high = float(film.min()), float(film.max())
    angle, zoom = np.radians(rng.normal(0, 5)), np.exp(rng.normal(0, 0.1))
    (dx, dy), middle = rng.normal(0, 5, 2), SIDE / 2
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    x, y = middle - (cos + sin) * middle + dx, middle + (sin - cos) * middle + dy
    moved = Image.fromarray(film.astype(np.float32)).transform(
        (SIDE, SIDE),
        Image.Transform.AFFINE,
        (cos, sin, x, -sin, cos, y),
        Image.Resampling.BILINEAR,
        fillcolor=low,
    )
    if rng.random() < 0.3:
        words = rng.choice(["L", "R", "AP PORT", "SUPINE"])
        place = (int(rng.integers(0, 100)), int(rng.choice([5, 112])))
        ImageDraw.Draw(moved).text(place, words, fill=high)
    out = np.array(moved)
    if rng.random() < 0.3:
        out += rng.normal(0, (high - low) * rng.uniform(0.01, 0.06), out.shape)
    if rng.random() < 0.25:
        for turns in range(4):
            if rng.random() < 0.5:
                np.rot90(out, turns)[: rng.integers(2, 12)] = rng.choice([low, high])
    return out


def part_of(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """So little of a film that the chest is not to be seen."""
    side = int(rng.integers(SIDE // 3, SIDE * 5 // 11))
    top, left = rng.integers(0, SIDE - side, 2)
    part = np.ascontiguousarray(film[top : top + side, left : left + side], np.float32)
    return np.asarray(Image.fromarray(part).resize((SIDE, SIDE)))


# What is drawn below is crude: it stands for the kinds of pictures that archives mix up.


def _grain(rng: np.random.Generator, slope: float) -> np.ndarray:
    """Noise whose spectrum falls with a power of the frequency; deviation 1."""
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(SIDE)] * 2))
    frequency[0, 0] = 1
    spectrum = np.fft.fft2(rng.normal(size=(SIDE, SIDE))) / frequency**slope
    grain = np.fft.ifft2(spectrum).real
    return grain / grain.std()


def _canvas(grey: float = 0.0) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("L", (SIDE, SIDE), int(grey))
    return image, ImageDraw.Draw(image)


def _blurred(image: Image.Image, radius: float) -> np.ndarray:
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float32)


def noise(rng: np.random.Generator) -> np.ndarray:
    return _grain(rng, rng.uniform(0, 2))


def blobs(rng: np.random.Generator) -> np.ndarray:
    image, draw = _canvas()
    for _ in range(rng.integers(2, 12)):
        (x, y), (a, b) = rng.uniform(0, SIDE, 2), rng.uniform(4, 50, 2)
        draw.ellipse([x - a, y - b, x + a, y + b], fill=int(rng.uniform(0, 255)))
    return _blurred(image, rng.uniform(0.5, 4)) + _grain(rng, 1) * rng.uniform(0, 20)


def boxes(rng: np.random.Generator) -> np.ndarray:
    image, draw = _canvas(rng.uniform(0, 255))
    for _ in range(rng.integers(3, 30)):
        (x, y), (a, b) = rng.uniform(-10, SIDE, 2), rng.uniform(3, 70, 2)
        draw.rectangle([x, y, x + a, y + b], fill=int(rng.uniform(0, 255)))
    return np.asarray(image, np.float32)


def page(rng: np.random.Generator) -> np.ndarray:
    ink = int(rng.choice([0, 255]))
    image, draw = _canvas(255 - ink)
    step = int(rng.integers(5, 12))
    for y in range(int(rng.integers(2, 12)), SIDE - 4, step):
        x = int(rng.integers(2, 14))
        while x < SIDE - 10 and rng.random() > 0.05:
            word = int(rng.integers(3, 18))
            draw.rectangle([x, y, min(x + word, SIDE - 6), y + step * 0.4], fill=ink)
            x += word + 3
    return np.asarray(image, np.float32)


def limb(rng: np.random.Generator) -> np.ndarray:
    """One or two long bones in soft tissue, bent at a joint, perhaps between white shutters."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    joint = rng.uniform(20, 110)
    lean = (y - 64) * np.tan(rng.normal(0, 0.15)) + np.maximum(y - joint, 0) * rng.normal(0, 0.25)
    middle = rng.uniform(40, 88) + lean
    wide = rng.uniform(14, 42) * (1 + rng.normal(0, 0.003) * (y - 64))
    wide = wide * (1 + 0.1 * np.exp(-(((y - joint) / 12) ** 2)))
    film = np.sqrt(np.maximum(1 - ((x - middle) / wide) ** 2, 0)) * rng.uniform(0.4, 0.8)
    bones = int(rng.integers(1, 3))
    for bone in range(bones):
        off = (bone - (bones - 1) / 2) * wide * rng.uniform(0.5, 0.8)
        radius = wide * rng.uniform(0.15, 0.4) * (1 + 0.7 * np.exp(-(((y - joint) / 9) ** 2)))
        across = ((x - middle - off) / radius) ** 2
        shell = np.sqrt(np.maximum(1 - across, 0)) - 0.75 * np.sqrt(np.maximum(1 - across * 2, 0))
        film += shell * rng.uniform(0.6, 1.2) * (1 - 0.5 * np.exp(-(((y - joint) / 1.5) ** 2)))
    film += _grain(rng, 1.2) * 0.03
    for shutter in (x < rng.uniform(5, 45), x > SIDE - rng.uniform(5, 45)):
        if rng.random() < 0.5:
            film[shutter] = film.max()
    return film


def hand(rng: np.random.Generator) -> np.ndarray:
    image, draw = _canvas()
    x, y = 64 + rng.normal(0, 6), 85 + rng.normal(0, 6)
    draw.ellipse([x - 24, y - 24, x + 24, y + 30], fill=90)
    draw.rectangle([x - 14, y + 20, x + 14, SIDE], fill=90)
    for finger, angle in enumerate(np.linspace(-0.7, 0.6, 5) + rng.normal(0, 0.05, 5)):
        length = rng.uniform(14, 19) if finger else 11
        a, b = x + 18 * np.sin(angle * 1.4), y - 15 * np.cos(angle)
        draw.line([x + 6 * np.sin(angle * 1.5), y + 10, a, b], fill=210, width=5)
        for _ in range(3):
            c, d = a + length * np.sin(angle), b - length * np.cos(angle)
            draw.line([a, b, c, d], fill=80, width=11)
            draw.line([a, b, c, d], fill=230, width=5)
            a, b = c + 1.5 * np.sin(angle), d - 1.5 * np.cos(angle)
    return _blurred(image, 1) + _grain(rng, 1) * 2


def skull(rng: np.random.Generator) -> np.ndarray:
    image, draw = _canvas()
    (x, y), (a, b) = 64 + rng.normal(0, 5, 2), rng.uniform((35, 42), (50, 56))
    draw.ellipse([x - a, y - b, x + a, y + b], fill=230)
    draw.ellipse([x - a + 5, y - b + 5, x + a - 5, y + b - 5], fill=int(rng.uniform(110, 180)))
    for side in (-16, 16):
        draw.ellipse([x + side - 10, y + 2, x + side + 10, y + 18], fill=70)
    draw.polygon([(x, y + 14), (x - 6, y + 32), (x + 6, y + 32)], fill=60)
    draw.rectangle([x - 18, y + 36, x + 18, y + 44], fill=250)
    return _blurred(image, 2) + _grain(rng, 1) * 4


def pelvis(rng: np.random.Generator) -> np.ndarray:
    image, draw = _canvas(110)
    x = 64 + rng.normal(0, 4)
    draw.rectangle([x - 9, 0, x + 9, 60], fill=190)
    for side in (-1, 1):
        for at, y, a, b, grey in (
            (33, 48, 24, 27, 180),
            (38, 84, 12, 12, 220),
            (18, 95, 9, 10, 80),
        ):
            draw.ellipse([x + side * at - a, y - b, x + side * at + a, y + b], fill=grey)
        draw.line([x + side * 45, 85, x + side * 55, SIDE], fill=215, width=14)
    return _blurred(image, 2.5) + _grain(rng, 1.3) * 10


def slice_(rng: np.random.Generator) -> np.ndarray:
    """An axial section of a thorax."""
    image, draw = _canvas()
    a, b = rng.uniform((48, 32), (60, 44))
    draw.ellipse([64 - a, 64 - b, 64 + a, 64 + b], fill=150)
    for side in (-1, 1):
        x = 64 + side * a * 0.48
        draw.ellipse([x - a * 0.36, 64 - b * 0.7, x + a * 0.36, 64 + b * 0.7], fill=20)
    draw.ellipse([58, 64 + b * 0.45, 72, 64 + b * 0.85], fill=240)
    return _blurred(image, 1) + _grain(rng, 1) * 4


def ramp(rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    angle = rng.uniform(0, 2 * np.pi)
    return np.cos(angle) * x + np.sin(angle) * y + _grain(rng, 0) * rng.choice([0, 0.01, 0.1])


DRAWN = {
    "noise": noise,
    "blobs": blobs,
    "boxes": boxes,
    "page of text": page,
    "limb": limb,
    "hand": hand,
    "skull": skull,
    "pelvis": pelvis,
    "section": slice_,
    "ramp": ramp,
}
