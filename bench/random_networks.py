"""What a network is worth before its first step: kNN and linear probe on the bundled sample for
the tiny ResNet of the quick preset, with plain weights, other groups and other seeds.

    OMP_NUM_THREADS=1 python bench/random_networks.py    # some minutes; random_networks.json
"""
from dataclasses import replace
from pathlib import Path

import torch

from long_runs import accuracies
from simclr_nb.core import describe_machine, write_json
from simclr_nb.data import sample
from simclr_nb.runs import PRESETS, build_model

HERE = Path(__file__).resolve().parent
SEEDS = range(5)
PLAIN = dict(weight_standardised=False)
EXACTLY = PLAIN | dict(groups=192) # every layer's channels divide it: group_channels decides
SETTINGS = {
    'eight groups, weights standardised, as in the preset': dict(),
    'eight groups': PLAIN | dict(groups=8),
    'one channel in a group': EXACTLY | dict(group_channels=1),
    'two channels in a group': EXACTLY | dict(group_channels=2),
    'four channels in a group': EXACTLY | dict(group_channels=4),
    'eight channels in a group': EXACTLY | dict(group_channels=8)}


def main():
    train, test = sample('train'), sample('test')
    result = dict(command='python bench/random_networks.py', rows=[],
                  machine=describe_machine(torch.device('cpu')))
    for name, settings in SETTINGS.items():
        for seed in SEEDS:
            config = replace(PRESETS['quick'], seed=seed, **settings)
            encoder = build_model(config).encoder
            row = dict(name=name, seed=seed) | accuracies(encoder, train, test)
            result['rows'].append(row)
            print(row, flush=True)
    write_json(HERE / 'random_networks.json', result)


if __name__ == '__main__':
    main()
