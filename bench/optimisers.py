"""LARS beside SGD and Adam: short runs of SimCLR at many learning rates, at a small and at a
large batch, each judged by training images that were held out.

    OMP_NUM_THREADS=1 python bench/optimisers.py    # an hour and a half of one core
    OMP_NUM_THREADS=1 python bench/optimisers.py 'seed 0, N 256'    # what begins so
    OMP_NUM_THREADS=1 python bench/optimisers.py best 3 4 5 6    # the best rates, other seeds

SGD is LARS without its trust ratio, the same code; Adam is PyTorch's. "LARS, two rates" has a
rate of its own, PLAIN, for biases and norms, which LARS does not adapt. All have the warmup,
the cosine, the momentum (Adam: its betas) and the weight decay of the other runs (Adam: on
biases and norms, too). Needs CIFAR-10 (simclr_data). What is finished is kept, in
optimisers.json, and not done again.
"""
import math
import sys
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

import torch

from long_runs import accuracies, is_stored, keep_result, need_beginning, read_results
from simclr_nb.cifar import cifar10
from simclr_nb.core import describe_machine, keep_freed_memory
from simclr_nb.data import sample
from simclr_nb.runs import TrainConfig
from simclr_nb.train import prepare, step_views, update

RESULTS = Path(__file__).resolve().parent / 'optimisers.json'
BATCHES, EPOCHS = (256, 1024), 16 # 304 and 64 updates
SETTINGS = TrainConfig(width=8, groups=8, weight_standardised=True, size=16, embed_size=32,
                       temperature=.2, epochs=EPOCHS, warmup_epochs=EPOCHS / 10,
                       precision='float32', device='cpu', compile=False)
RATES = dict(LARS=(.1, .3, 1., 3., 10., 30.), # base rates
             SGD=(.003, .01, .03, .1, .3, 1., 3., 10.),
             Adam=(.0001, .0003, .001, .003, .01, .03),
             two=(.3, 1., 3., 10., 30.))
NAMES = dict(two='LARS with two rates') # in keys
PLAIN = .03 # base rate of biases and norms there
SEEDS = (0, 1, 2)


def cell(seed, batch, optimiser, rate):
    "(key, optimiser, settings) of a run"
    config = replace(SETTINGS, seed=seed, batch=batch, lr=rate)
    if optimiser == 'two': # a schedule sets one rate for all, so the ratio takes the difference
        config = replace(config, lr=PLAIN, trust_coefficient=1e-3 * rate / PLAIN)
    name = NAMES.get(optimiser, optimiser)
    return f'seed {seed}, N {batch}, {EPOCHS} epochs, {name}, rate {rate}', optimiser, config


def cells():
    "Those that choose the rates, each seed whole before the next"
    return [cell(seed, batch, optimiser, rate) for seed, batch in product(SEEDS, BATCHES)
            for optimiser, rates in RATES.items() for rate in rates]


def best_cells(seeds):
    "Every optimiser at the rate that is best for kNN by the mean over SEEDS, with other seeds"
    stored, chosen = read_results(RESULTS), []
    for batch, (optimiser, rates) in product(BATCHES, RATES.items()):
        def mean_of(rate):
            keys = [cell(seed, batch, optimiser, rate)[0] for seed in SEEDS]
            return sum(stored[key]['knn'] for key in keys) / len(keys)
        chosen.append((batch, optimiser, max(rates, key=mean_of)))
    return [cell(seed, *each) for seed in seeds for each in chosen]


def take_optimiser(training, name):
    if name == 'SGD':
        for group in training.optimiser.param_groups:
            group['trust_coefficient'] = None
    elif name == 'Adam':
        training.optimiser = torch.optim.Adam(training.model.parameters(), lr=0.,
                                              weight_decay=training.config.weight_decay)


def figures_of(optimiser, config, train, held_out):
    training = prepare(config, train)
    take_optimiser(training, optimiser)
    figures = dict(updates=training.total_steps, settings=asdict(config),
                   on=describe_machine(torch.device('cpu')))
    for step in range(training.total_steps):
        row = update(training, step_views(training, step), step)
        if not math.isfinite(row['loss'] + row['grad_norm']):
            return figures | dict(failed_at=step)
    encoder = training.model.encoder.eval()
    return figures | accuracies(encoder, train, held_out, config.embed_size) | dict(
        loss=row['loss'], chance=row['chance'])


def main(words):
    keep_freed_memory()
    if words[:1] == ['best']:
        wanted = best_cells([int(seed) for seed in words[1:]])
    else:
        beginning = ' '.join(words)
        need_beginning(beginning, [key for key, _, _ in cells()])
        wanted = [each for each in cells() if each[0].startswith(beginning)]
    train, held_out = sample('train'), cifar10('train')[-10_000:] # not in the sample
    for key, optimiser, config in wanted:
        if not is_stored(key, read_results(RESULTS), config):
            figures = figures_of(optimiser, config, train, held_out)
            print(key, figures.get('knn', 'failed'), figures.get('loss'), flush=True)
            keep_result(RESULTS, [key], figures)


if __name__ == '__main__':
    main(sys.argv[1:])
