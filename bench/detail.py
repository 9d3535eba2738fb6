"""What is it worth to keep pictures at a higher resolution than that of a view?

    pip install scikit-image scikit-learn    # for the pictures that these packages ship
    OMP_NUM_THREADS=1 python bench/detail.py    # forty minutes of one core

Tiles of 128x128 pixels are cut at random from eighteen pictures, textures, scans, photographs,
microscopy; the picture that a tile is from is its class. Tiles of the left part of a picture
are trained on and vote, tiles of the right part are asked (kNN), and the two parts do not
touch. One encoder is trained from the tiles at 128 pixels, so that a view of 32x32 can show
detail, one from thumbnails of 32 pixels; all else is equal, the crops among it. What is
finished is kept, in detail.json, and not done again.
"""
import math
from dataclasses import asdict, replace
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from long_runs import is_stored, keep_result, read_results
from simclr_nb.core import describe_machine, generator, keep_freed_memory
from simclr_nb.data import ImageSet, to_rgb
from simclr_nb.evaluate import embed, knn_accuracy
from simclr_nb.runs import PRESETS, build_model
from simclr_nb.train import pretrain

RESULTS = Path(__file__).resolve().parent / 'detail.json'
SHIPPED = {'skimage': ('data', 'astronaut.png brick.png camera.png cell.png chelsea.png '
                       'coffee.png coins.png grass.png gravel.png hubble_deep_field.jpg '
                       'ihc.png moon.png motorcycle_left.png page.png retina.jpg rocket.jpg'),
           'sklearn': ('datasets/images', 'china.jpg flower.jpg')}
TILE, THUMBNAIL, SIZES = 128, 32, (32, 64) # SIZES: at which features are taken
TRAINED, ASKED, UPDATES, SEEDS = 120, 40, 1200, (0, 1) # tiles of each picture


def pictures():
    "(name, pixels uint8 (3, H, W)) of every picture"
    for package, (folder, names) in SHIPPED.items():
        place = Path(find_spec(package).origin).parent / folder
        for name in names.split():
            with Image.open(place / name) as picture:
                rgb, _ = to_rgb(picture)
            yield name, torch.from_numpy(np.asarray(rgb).copy()).permute(2, 0, 1)


def tiles(pixels, count, rng):
    "count tiles uint8 (count, 3, TILE, TILE) at random places"
    down, right = (torch.randint(side - TILE + 1, (count,), generator=rng)
                   for side in pixels.shape[1:])
    return torch.stack([pixels[:, y:y + TILE, x:x + TILE] for y, x in zip(down, right)])


def tile_sets():
    "Two `ImageSet`s, of the left and of the right part of each picture"
    sets, names = ([], []), []
    for label, (name, pixels) in enumerate(pictures()):
        # at least a tile wide on either side
        border = max(TILE, min(round(.6 * pixels.shape[2]), pixels.shape[2] - TILE))
        parts = (pixels[:, :, :border], TRAINED), (pixels[:, :, border:], ASKED)
        for kept, (part, count) in zip(sets, parts):
            kept.append((tiles(part, count, generator(label, 'tiles')),
                         torch.full((count,), label)))
        names.append(name)
    return [ImageSet(*map(torch.cat, zip(*kept)), names) for kept in sets]


def thumbnails(images):
    small = F.interpolate(images.images.float(), (THUMBNAIL, THUMBNAIL), mode='bilinear',
                          antialias=True)
    return ImageSet(small.round().byte(), images.labels, images.classes)


def accuracies(model, trained, asked):
    return {str(size): knn_accuracy(embed(model.encoder, trained, size=size), trained.labels,
                                    embed(model.encoder, asked, size=size), asked.labels, k=20)
            for size in SIZES}


def main():
    keep_freed_memory()
    whole = tile_sets()
    kinds = {'detail': whole, 'thumbnails': [thumbnails(part) for part in whole]}
    for seed, (kind, (trained, asked)) in product(SEEDS, kinds.items()):
        config = replace(PRESETS['quick'], size=32, min_crop=.08, seed=seed, device='cpu',
                         compile=False)
        epochs = math.ceil(UPDATES / (len(trained) // config.batch))
        config = replace(config, epochs=epochs, warmup_epochs=epochs / 40)
        key = f'{kind}, seed {seed}'
        if is_stored(key, read_results(RESULTS), config):
            continue
        before = accuracies(build_model(config), trained, asked)
        model, history = pretrain(config, trained, progress=False)
        found = dict(settings=asdict(config), machine=describe_machine(torch.device('cpu')),
                     tiles=[len(trained), len(asked)], pictures=len(trained.classes),
                     updates=len(history), seconds=history[-1]['seconds'],
                     loss=history[-1]['loss'], top1=history[-1]['top1'],
                     knn=accuracies(model, trained, asked), knn_before=before)
        keep_result(RESULTS, (key,), found)
        print(f"{key}: kNN {found['knn']}, before {before}", flush=True)


if __name__ == '__main__':
    main()
