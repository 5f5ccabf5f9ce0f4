"""Pictures with exact masks: drawn objects on photographs and patterns, from three Debian packages.

``python -m benchmarks.segmentation.compose FOLDER`` with the folder ``usr/share`` of the packages ``tuxpaint-stamps-default``,
``plasma-workspace-wallpapers`` and ``gnome-backgrounds``, unpacked into one place (``apt-get download`` and ``dpkg -x``; nothing is
installed). It writes ``data/segmentation/files``: ``<split>/<number>.jpg``, and ``<number>.mask.png`` with the class of each pixel, and
``labelled_files``: the same, but of the pictures to train on only 200. Splits share neither objects nor backgrounds, so that none can be
learned by heart.
"""

from __future__ import annotations

import argparse
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES: dict[str, tuple[str, ...]] = {
    "animal": ("animals",),
    "plant": ("food/fruit", "food/vegetables", "food/nuts", "plants"),
    "built": ("town/houses", "town/monuments", "vehicles", "military/vehicles"),
    "symbol": ("symbols/alphabets", "symbols/math", "symbols/chess", "symbols/music", "town/roadsigns", "town/flags"),
}
"""Class -> folders of the stamps; classes are numbered from 1 in this order, 0 is the background."""
NO_BACKGROUNDS = ("FlyingKonqui", "pixels", "symbolic", "vnc")  # they show objects, or nothing
IGNORE = 255
SIDE, ENLARGED = 64, 4
COUNTS = {"train": 4000, "val": 200, "test": 500}
SHARES = (0.7, 0.1)  # of objects and backgrounds: to train on, to validate on; the rest is for the test
LABELLED = 200
OBJECTS, SIZES = (1, 3), (0.3, 0.8)  # in a picture; longest side of an object as a share of the picture's
SOLID, CLEAR = 0.75, 0.25  # opacity from which a pixel is the object's, and up to which it is not; between the two it counts for nothing
FILLED = (0.1, 0.9)  # share of its box that an object must cover: masks that are boxes say nothing of its outline
PHOTO_WIDTH = 640  # pixels; crops are taken from the pictures at this width


def split_of(number: int, count: int) -> str:
    """Return the split of the ``number``-th of so many shuffled things."""
    return "train" if number < SHARES[0] * count else "val" if number < sum(SHARES) * count else "test"


def by_split(paths: Sequence[Sequence[Path]], draw: random.Random) -> dict[str, list[Path]]:
    """Give each group of paths to one split; what is alike is one group."""
    groups = draw.sample(list(paths), len(paths))
    found: dict[str, list[Path]] = {name: [] for name in COUNTS}
    for number, group in enumerate(groups):
        found[split_of(number, len(groups))] += group
    return found


def stamps(folder: Path) -> Iterator[tuple[int, Path]]:
    """Yield class and file of each stamp that is an outline and not a box."""
    for number, folders in enumerate(CLASSES.values(), start=1):
        for path in sorted(path for name in folders for path in (folder / name).rglob("*.png")):
            with Image.open(path) as image:
                opacity = np.asarray(image.convert("RGBA").resize((SIDE, SIDE)))[..., 3] / 255
            if FILLED[0] < (opacity > SOLID).mean() < FILLED[1]:
                yield number, path


def backgrounds(share: Path) -> list[list[Path]]:
    """Return the largest picture of each wallpaper; those by day and by night are one group."""
    groups = []
    for folder in sorted((share / "wallpapers").iterdir()):
        pictures = [path for path in folder.glob("contents/images/*.*") if path.suffix in (".jpg", ".png")]
        if pictures and folder.name not in NO_BACKGROUNDS:
            groups.append([max(pictures, key=lambda path: (path.stat().st_size, path.name))])
    names = sorted({path.stem[:-2] for path in (share / "backgrounds/gnome").glob("*-?.webp")} - set(NO_BACKGROUNDS))
    return groups + [sorted((share / "backgrounds/gnome").glob(f"{name}-?.webp")) for name in names]


def photograph(path: Path) -> Image.Image:
    """Return a background at the width that crops are taken from."""
    with Image.open(path) as image:
        image.draft("RGB", (PHOTO_WIDTH * 2, PHOTO_WIDTH))
        return image.convert("RGB").resize((PHOTO_WIDTH, round(PHOTO_WIDTH * image.height / image.width)), Image.Resampling.LANCZOS)


def crop(photo: Image.Image, draw: random.Random) -> Image.Image:
    """Return a random square of a photograph, four times as large as a picture so that objects get smooth edges."""
    side = draw.randint(SIDE, min(photo.size))
    left, top = draw.randint(0, photo.width - side), draw.randint(0, photo.height - side)
    square = photo.crop((left, top, left + side, top + side))
    return square.resize((SIDE * ENLARGED,) * 2, Image.Resampling.BICUBIC).convert("RGBA")


def compose(photo: Image.Image, objects: Sequence[tuple[int, Image.Image]], draw: random.Random) -> tuple[Image.Image, Image.Image]:
    """Paste objects over a crop of a photograph at random sizes and places; return the picture and its mask."""
    canvas = crop(photo, draw)
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    for number, stamp in objects:
        longest = draw.uniform(*SIZES) * SIDE * ENLARGED
        scale = longest / max(stamp.size)
        size = max(1, round(stamp.width * scale)), max(1, round(stamp.height * scale))
        piece = stamp.resize(size, Image.Resampling.BICUBIC)
        piece = piece.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if draw.random() < 0.5 else piece
        place = draw.randint(0, SIDE * ENLARGED - size[0]), draw.randint(0, SIDE * ENLARGED - size[1])
        layer = Image.new("RGBA", canvas.size)
        layer.paste(piece, place)
        canvas = Image.alpha_composite(canvas, layer)
        opacity = np.asarray(layer.getchannel("A").resize((SIDE, SIDE), Image.Resampling.BOX)) / 255
        mask[opacity > CLEAR] = IGNORE
        mask[opacity >= SOLID] = number
    return canvas.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX), Image.fromarray(mask)


def write_files(share: Path, target: Path, seed: int = 0) -> None:
    """Write pictures and masks of all splits, and for each split a line about what is in it."""
    draw = random.Random(seed)
    classes = {path: number for number, path in stamps(share / "tuxpaint/stamps")}
    objects: dict[str, list[Path]] = {name: [] for name in COUNTS}
    for number in range(1, len(CLASSES) + 1):
        for name, paths in by_split([[path] for path in classes if classes[path] == number], draw).items():
            objects[name] += paths
    scenes = by_split(backgrounds(share), draw)
    for name in COUNTS:
        groups = [[path for path in objects[name] if classes[path] == number] for number in range(1, len(CLASSES) + 1)]
        write_split(target / name, COUNTS[name], groups, scenes[name], draw)


def write_split(target: Path, count: int, groups: list[list[Path]], scenes: list[Path], draw: random.Random) -> None:
    """Write pictures and masks from the objects of each class and the backgrounds of a split, and say what is in it."""
    photos = [photograph(path) for path in scenes]
    images = {path: (number, Image.open(path).convert("RGBA")) for number, group in enumerate(groups, start=1) for path in group}
    target.mkdir(parents=True)
    for index in range(count):
        chosen = [draw.choice(draw.choice(groups)) for _ in range(draw.randint(*OBJECTS))]
        picture, mask = compose(draw.choice(photos), [images[path] for path in chosen], draw)
        picture.save(target / f"{index:05}.jpg", quality=95)
        mask.save(target / f"{index:05}.mask.png")
    kinds = ", ".join(str(len(group)) for group in groups)
    print(f"{target.name}: {count} pictures of {len(images)} objects ({kinds}), {len(photos)} backgrounds")


def copy_labelled(files: Path, target: Path) -> None:
    """Copy the first pictures to train on, the few that count as labelled, and all others to score on."""
    for name in COUNTS:
        (target / name).mkdir(parents=True)
        last = LABELLED if name == "train" else COUNTS[name]
        for path in sorted((files / name).iterdir()):
            if int(path.name.partition(".")[0]) < last:
                shutil.copyfile(path, target / name / path.name)


def main() -> None:
    """Write the files anew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("share", help="folder usr/share of the unpacked packages")
    parser.add_argument("--to", default="data/segmentation", metavar="FOLDER")
    options = parser.parse_args()
    target = Path(options.to)
    for name in ("files", "labelled_files"):
        shutil.rmtree(target / name, ignore_errors=True)
    write_files(Path(options.share), target / "files")
    copy_labelled(target / "files", target / "labelled_files")


if __name__ == "__main__":
    main()
