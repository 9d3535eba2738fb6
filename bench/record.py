"""The best encoder that SimCLR trains on all of CIFAR-10 in 30 minutes, and in 3 hours, of two
CPU cores. The rules stand in README.md.

    OMP_NUM_THREADS=1 python bench/record.py try [NAME ..]    # short runs, held-out images

Settings are chosen by short runs on 45,000 training images, judged by the 5,000 others; test
images have no part in that. Needs CIFAR-10 (simclr_data). What is finished is kept in
record.json and not done again.
"""
import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch

from simclr_nb.cifar import cifar10
from simclr_nb.core import describe_machine, keep_freed_memory, write_json
from simclr_nb.data import hold_out
from simclr_nb.evaluate import embed, knn_accuracy, linear_probe
from simclr_nb.runs import TrainConfig
from simclr_nb.train import pretrain

HERE = Path(__file__).resolve().parent
RESULTS = HERE / 'record.json'
BASE = TrainConfig(width=16, groups=8, weight_standardised=True, head_hidden=256, batch=256,
                   temperature=.1, lr=2., warmup_epochs=.5, precision='float32', device='cpu')
# short runs, some quarter of an hour of one core each
TRIED = {
    'width 16, views of 32 pixels': dict(epochs=3),
    'width 16, views of 24 pixels': dict(size=24, epochs=5),
    'width 16, views of 16 pixels': dict(size=16, epochs=11),
    'width 32, views of 24 pixels': dict(width=32, size=24, epochs=2),
    'width 32, views of 16 pixels': dict(width=32, size=16, epochs=5),
}


def accuracies(encoder, bank, images, size):
    bank_h, images_h = (embed(encoder, part, size=size) for part in (bank, images))
    return dict(knn=knn_accuracy(bank_h, bank.labels, images_h, images.labels),
                linear=linear_probe(bank_h, bank.labels, images_h, images.labels))


def short_run(settings):
    "Accuracies on held-out images, with a bank of 10,000 others, and minutes of one core"
    config = replace(BASE, **settings)
    kept, held_out = hold_out(cifar10('train'), fraction=.1)
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
    if words[:1] != ['try']:
        sys.exit(__doc__)
    for name in words[1:] or TRIED:
        if name in read_results().get('tried', {}):
            continue
        figures = short_run(TRIED[name])
        print(name, figures['by_size'], figures['core_minutes'], flush=True)
        results = read_results()
        results.setdefault('tried', {})[name] = figures
        write_json(RESULTS, results)


if __name__ == '__main__':
    main(sys.argv[1:])
