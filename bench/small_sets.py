"""A few hundred pictures: which batch, and how many updates, let SimCLR learn from them?

    OMP_NUM_THREADS=1 python bench/small_sets.py    # an hour of one core

The settings are those of the preset quick but for batch and epochs. The first images of the
sample stand for somebody's pictures; 2,000 other training images vote on the test images of
the sample (kNN), so a figure tells what the features are worth on pictures that nobody has
trained on. What is finished is kept, in small_sets.json, and not done again.
"""
import math
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

import torch

from long_runs import is_stored, keep_result, read_results
from simclr_nb.augment import two_views
from simclr_nb.core import describe_machine, generator, keep_freed_memory
from simclr_nb.data import sample
from simclr_nb.evaluate import embed, knn_accuracy, partners_found
from simclr_nb.ntxent import chance_loss
from simclr_nb.runs import PRESETS, build_model
from simclr_nb.train import pretrain

RESULTS = Path(__file__).resolve().parent / 'small_sets.json'
COUNTS = (100, 400, 1600)
BATCHES = (16, 32, 64, 128)
UPDATES = (42, 1000, 3000) # 42: what 14 epochs of 400 pictures in batches of 128 were
SEEDS = (0, 1)


def cells():
    "(key, pictures, settings), the short ones first"
    for updates, seed, count, batch in product(UPDATES, SEEDS, COUNTS, BATCHES):
        if batch > count or (updates == 42 and batch != min(128, count)):
            continue
        if updates == 3000 and count != 400:
            continue
        epochs = math.ceil(updates / (count // batch))
        config = replace(PRESETS['quick'], batch=batch, epochs=epochs, seed=seed, compile=False,
                         device='cpu', warmup_epochs=epochs / 40)
        yield f'{count} pictures, batch {batch}, {updates} updates, seed {seed}', count, config


def accuracy_of(model):
    "kNN accuracy of a model's features on the test images of the sample, 0..1"
    voters, asked = sample('train')[3000:], sample('test')
    size = PRESETS['quick'].size_to_embed
    return knn_accuracy(embed(model.encoder, voters, size=size), voters.labels,
                        embed(model.encoder, asked, size=size), asked.labels)


def found_by(model, config, images):
    "Part of the views of up to 1,000 of these images whose partner is nearest, for z, 0..1"
    views = two_views(images.images[:1000], config.augmentation(), generator(0, 'measures'))
    return partners_found(embed(model, views))


def figures_of(config, count):
    images, before = sample('train')[:count], build_model(config)
    model, history = pretrain(config, images, progress=False)
    last = history[-max(1, len(history) // 20):]
    return dict(settings=asdict(config), machine=describe_machine(torch.device('cpu')),
                updates=len(history), seconds=history[-1]['seconds'],
                loss=sum(row['loss'] for row in last) / len(last),
                chance=chance_loss(config.batch),
                top1=sum(row['top1'] for row in last) / len(last),
                found=found_by(model, config, images),
                found_before=found_by(before, config, images),
                knn=accuracy_of(model), knn_before=accuracy_of(before))


def main():
    keep_freed_memory()
    for key, count, config in cells():
        if is_stored(key, read_results(RESULTS), config):
            continue
        found = figures_of(config, count)
        keep_result(RESULTS, (key,), found)
        print(f"{key}: kNN {100 * found['knn']:.1f} (before {100 * found['knn_before']:.1f}), "
              f"loss {found['loss']:.2f} of {found['chance']:.2f}", flush=True)


if __name__ == '__main__':
    main()
