"""What a small network learns from crops alone, and with colour distortion: SimCLR on the
bundled sample, with views of 16x16 pixels.

    OMP_NUM_THREADS=1 python bench/colour.py    # ten minutes of one core; colour.json

Figures that are there are not made again.
"""
from dataclasses import asdict, replace
from pathlib import Path

import torch

from long_runs import accuracies, is_stored, keep_result, read_results
from simclr_nb.core import describe_machine, keep_freed_memory
from simclr_nb.data import sample
from simclr_nb.runs import TrainConfig, build_model
from simclr_nb.train import pretrain

RESULTS = Path(__file__).resolve().parent / 'colour.json'
SEEDS = (0, 1, 2)
COLOURS = TrainConfig(width=8, groups=8, weight_standardised=True, size=16, embed_size=32,
                      batch=256, epochs=15, warmup_epochs=1.5, temperature=.1, lr=2.,
                      min_crop=.2, device='cpu', precision='float32', compile=False)
ARMS = {'crops and colours': COLOURS, # the colour settings of TrainConfig are the paper's
        'crops alone': replace(COLOURS, strength=0., grey=0.)}


def trained_figures(config):
    train = sample('train')
    model, history = pretrain(config, train, progress=False)
    last_epoch = history[-(len(train) // config.batch):]
    figures = accuracies(model.encoder, train, sample('test'))
    return figures | {name: sum(row[name] for row in last_epoch) / len(last_epoch)
                      for name in ('loss', 'top1')}


def keep(key, config, figures):
    figures = dict(on=describe_machine(torch.device('cpu')), settings=asdict(config)) | figures
    keep_result(RESULTS, [key], figures)
    print(key, figures, flush=True)


def main():
    keep_freed_memory()
    for seed in SEEDS:
        for arm, config in ARMS.items():
            config = replace(config, seed=seed)
            key = f'{arm}, seed {seed}'
            if not is_stored(key, read_results(RESULTS), config):
                keep(key, config, trained_figures(config))
        before = replace(COLOURS, seed=seed)
        key = f'before training, seed {seed}'
        if not is_stored(key, read_results(RESULTS), before):
            encoder = build_model(before).eval().encoder
            keep(key, before, accuracies(encoder, sample('train'), sample('test')))


if __name__ == '__main__':
    main()
