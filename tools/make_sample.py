"""Make the two files of the bundled sample from all of CIFAR-10, and print their SHA-256 sums.

    python tools/make_sample.py [FOLDER]    # default: simclr_nb/

A file that exists is not overwritten.
"""
import hashlib, sys
from pathlib import Path

from PIL import Image, PngImagePlugin

from simclr_nb.cifar import cifar10
from simclr_nb.core import atomic_path


def tile(images, rows):
    "Images (M, 3, size, size) side by side in `rows` rows: (rows * size, cols * size, 3)"
    size, cols = images.shape[-1], len(images) // rows
    tiles = images.reshape(rows, cols, 3, size, size)
    return tiles.permute(0, 3, 1, 4, 2).reshape(rows * size, cols * size, 3)


def write_sample(path, part, rows):
    "Write the images of `part` as one PNG of `rows` rows, their labels as its text"
    info = PngImagePlugin.PngInfo()
    info.add_text('labels', ''.join(map(str, part.labels.tolist())))
    wall = Image.fromarray(tile(part.images, rows).numpy())
    with atomic_path(path) as temporary, open(temporary, 'wb') as file:
        wall.save(file, 'png', pnginfo=info, optimize=True)


def main():
    folder = Path(__file__).parent.parent / 'simclr_nb'
    if len(sys.argv) > 1:
        folder = Path(sys.argv[1])
    for split, per_class, rows in (('train', 500, 50), ('test', 200, 40)):
        part = cifar10(split).first_per_class(per_class)
        path = folder / f'sample-{split}.png'
        write_sample(path, part, rows)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        print(split, len(part), f'{path.stat().st_size:,} bytes', sha256)


if __name__ == '__main__':
    main()
