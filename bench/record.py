"""The best encoder that SimCLR trains on all of CIFAR-10 in 30 minutes, and in 3 hours, of two
CPU cores. The rules stand in README.md.

    OMP_NUM_THREADS=1 python bench/record.py try [NAME ..]    # short runs, held-out images
    OMP_NUM_THREADS=1 python bench/record.py quick [NAME ..]    # the same for the quick preset

Settings are chosen by short runs on 45,000 training images, judged by the 5,000 others; those
of the quick preset on 4,000 images of the bundled sample, judged by 1,000 others. Test images
have no part in that. Needs CIFAR-10 (simclr_data). What is finished is kept in record.json and
not done again.
"""
import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch

from simclr_nb.cifar import cifar10
from simclr_nb.core import describe_machine, keep_freed_memory, write_json
from simclr_nb.data import hold_out, sample
from simclr_nb.evaluate import embed, knn_accuracy, linear_probe
from simclr_nb.runs import TrainConfig
from simclr_nb.train import pretrain

HERE = Path(__file__).resolve().parent
RESULTS = HERE / 'record.json'
BASE = TrainConfig(width=16, groups=8, weight_standardised=True, head_hidden=256, batch=256,
                   temperature=.1, lr=2., warmup_epochs=.5, precision='float32', device='cpu')
QUICK = TrainConfig(temperature=.1, precision='float32', device='cpu')
SEEDS = dict(tried=(0,), quick=(0, 1)) # fewer images are held out for quick
# short runs, some quarter of an hour of one core each
TRIED = {
    'width 16, views of 32 pixels': dict(epochs=3),
    'width 16, views of 24 pixels': dict(size=24, epochs=5),
    'width 16, views of 16 pixels': dict(size=16, epochs=11),
    'width 32, views of 24 pixels': dict(width=32, size=24, epochs=2),
    'width 32, views of 16 pixels': dict(width=32, size=16, epochs=5),
}
# some ten minutes of one core each
STANDARDISED = dict(groups=8, weight_standardised=True)
TRIED_QUICK = {
    'as it was': dict(epochs=14),
    'standardised': dict(STANDARDISED, epochs=14),
    'standardised, views of 24 pixels': dict(STANDARDISED, size=24, epochs=24),
    'standardised, views of 16 pixels': dict(STANDARDISED, size=16, epochs=54),
}


def accuracies(encoder, bank, images, size):
    bank_h, images_h = (embed(encoder, part, size=size) for part in (bank, images))
    return dict(knn=knn_accuracy(bank_h, bank.labels, images_h, images.labels),
                linear=linear_probe(bank_h, bank.labels, images_h, images.labels))


def short_run(config, images, fraction):
    "Accuracies on held-out images, with a bank of 10,000 others, and minutes of one core"
    kept, held_out = hold_out(images, fraction)
    start = time.process_time()
    model, history = pretrain(config, kept, progress=False)
    minutes = (time.process_time() - start) / 60
    by_size = {str(size): accuracies(model.encoder, kept[:10_000], held_out, size)
               for size in sorted({config.size, 32})}
    return dict(by_size=by_size, core_minutes=round(minutes, 1), updates=len(history),
                loss=history[-1]['loss'], settings=asdict(config),
                on=describe_machine(torch.device('cpu')))


def read_results():
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def main(words):
    keep_freed_memory()
    if words[:1] == ['try']:
        part, base, tried, images, fraction = 'tried', BASE, TRIED, cifar10('train'), .1
    elif words[:1] == ['quick']:
        part, base, tried, images, fraction = 'quick', QUICK, TRIED_QUICK, sample('train'), .2
    else:
        sys.exit(__doc__)
    for seed in SEEDS[part]:
        for name in words[1:] or tried:
            key = f'{name}, seed {seed}'
            if key in read_results().get(part, {}):
                continue
            config = replace(base, **tried[name], seed=seed)
            figures = short_run(config, images, fraction)
            print(key, figures['by_size'], figures['core_minutes'], flush=True)
            results = read_results()
            results.setdefault(part, {})[key] = figures
            write_json(RESULTS, results)


if __name__ == '__main__':
    main(sys.argv[1:])
