"""Beginning with the weights of another encoder: what is it worth?

    pip install scikit-image scikit-learn    # for the pictures that these packages ship
    OMP_NUM_THREADS=1 python bench/warm.py   # an hour of one core
    OMP_NUM_THREADS=1 python bench/warm.py --few   # a minute, nothing is kept

Few pictures: 20 tiles of each of eighteen pictures are trained on (see detail.py), once from
drawn weights and once from those of the encoder that learnt from the sample, for as many
updates. Other tiles of the left parts vote, tiles of the right parts are asked (kNN).

A longer run: 20 epochs of the sample, 20 more with a fresh schedule, and beside it 40 epochs
in one run; kNN on the test images of the sample. What is finished is kept, in warm.json, and
not done again.
"""
import argparse
import math
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import torch

from detail import TRAINED, tile_sets
from long_runs import is_stored, keep_result, read_results
from simclr_nb.core import describe_machine, keep_freed_memory
from simclr_nb.data import sample
from simclr_nb.evaluate import embed, knn_accuracy
from simclr_nb.plan import extended
from simclr_nb.resnet import load_encoder
from simclr_nb.runs import PRESETS, build_model
from simclr_nb.train import pretrain

HERE = Path(__file__).resolve().parent
RESULTS = HERE / 'warm.json'
OTHER = HERE.parent / 'nbs' / 'stored' / 'quick' / 'encoder.safetensors' # of the sample
FEW, UPDATES, EPOCHS, SEEDS = 20, (0, 200, 1000), 20, (0, 1)


def accuracy(encoder, voters, asked):
    "kNN accuracy on `asked`, 0..1"
    size = PRESETS['quick'].size_to_embed
    return knn_accuracy(embed(encoder, voters, size=size), voters.labels,
                        embed(encoder, asked, size=size), asked.labels)


def settings(seed, epochs):
    return replace(PRESETS['quick'], seed=seed, device='cpu', compile=False, epochs=epochs,
                   warmup_epochs=epochs / 40)


def few_pictures(updates, seed, is_warm):
    "-> settings, figures of a run on few tiles; no updates: of the encoder as it begins"
    voters, asked = tile_sets()
    rows = [k for k in range(len(voters)) if k % TRAINED < FEW] # tiles stand by picture
    trained, voters = voters[rows], voters[[k for k in range(len(voters)) if k not in rows]]
    config = settings(seed, max(1, math.ceil(updates / (len(trained) // 128))))
    if updates == 0:
        encoder = load_encoder(OTHER) if is_warm else build_model(config).encoder
        return config, lambda: dict(updates=0, knn=accuracy(encoder.eval(), voters, asked))
    def figures():
        model, history = pretrain(config, trained, progress=False,
                                  init=OTHER if is_warm else None)
        return dict(tiles=len(trained), asked=len(asked), updates=len(history),
                    seconds=history[-1]['seconds'], loss=history[-1]['loss'],
                    knn=accuracy(model.encoder, voters, asked))
    return config, figures


def longer(seed, epochs):
    "-> settings, figures: after so many epochs, after as many more, and after twice in one"
    config = settings(seed, epochs)
    train, test = sample('train'), sample('test')
    def figures():
        with tempfile.TemporaryDirectory() as folder:
            first, _ = pretrain(config, train, progress=False, folder=f'{folder}/first')
            more, _ = pretrain(extended(config, epochs), train, progress=False,
                               init=f'{folder}/first')
        at_once, history = pretrain(settings(seed, 2 * epochs), train, progress=False)
        found = {name: accuracy(model.encoder, train, test)
                 for name, model in (('first', first), ('more', more), ('at_once', at_once))}
        return dict(updates=len(history), asked=len(test), knn=found)
    return config, figures


def cells(updates, epochs, seeds):
    "(key, settings, function that gives figures)"
    for seed in seeds:
        for count in updates:
            for is_warm in (False, True):
                kind = 'warm' if is_warm else 'drawn'
                yield f'{kind}, {count} updates, seed {seed}', *few_pictures(count, seed,
                                                                             is_warm)
    for seed in seeds:
        yield f'longer, seed {seed}', *longer(seed, epochs)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--few', action='store_true', help='a few updates, nothing is kept')
    few = parser.parse_args().few
    keep_freed_memory()
    chosen = ((0, 4), 1, (0,)) if few else (UPDATES, EPOCHS, SEEDS)
    for key, config, figures in cells(*chosen):
        if not few and is_stored(key, read_results(RESULTS), config):
            continue
        found = dict(settings=asdict(config), machine=describe_machine(torch.device('cpu')),
                     **figures())
        if not few:
            keep_result(RESULTS, (key,), found)
        print(f"{key}: kNN {found['knn']}", file=sys.stderr, flush=True)


if __name__ == '__main__':
    main()
