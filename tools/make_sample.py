"""Make the two files of the bundled sample from all of CIFAR-10, and print their SHA-256 sums.

    python tools/make_sample.py [FOLDER]    # default: simclr_nb/; a file that exists is not overwritten
"""
import hashlib
import sys
from pathlib import Path

from PIL import Image, PngImagePlugin

from simclr_nb.cifar import cifar10
from simclr_nb.core import atomic_path

folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent / 'simclr_nb')
for split, n, rows in (('train', 500, 50), ('test', 200, 40)):
    part = cifar10(split).first_per_class(n)
    size, cols = part.images.shape[-1], len(part) // rows
    wall = part.images.reshape(rows, cols, 3, size, size).permute(0, 3, 1, 4, 2).reshape(rows * size, cols * size, 3)
    text = PngImagePlugin.PngInfo()
    text.add_text('labels', ''.join(map(str, part.labels.tolist())))
    path = folder / f'sample-{split}.png'
    with atomic_path(path) as p, open(p, 'wb') as f: Image.fromarray(wall.numpy()).save(f, 'png', pnginfo=text, optimize=True)
    print(split, len(part), f'{path.stat().st_size:,} bytes', hashlib.sha256(path.read_bytes()).hexdigest())
