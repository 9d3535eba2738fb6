"""The best encoder that SimCLR trains on all of CIFAR-10 in 30 minutes, and in 3 hours, of two
CPU cores. The rules stand in README.md.

    OMP_NUM_THREADS=1 python bench/record.py try [NAME ..]    # short runs, held-out images
    OMP_NUM_THREADS=1 python bench/record.py quick [NAME ..]    # the same for the quick preset
    OMP_NUM_THREADS=2 python bench/record.py enter '30 minutes' [SEED ..]    # the record itself

Settings are chosen by short runs on 45,000 training images, judged by the 5,000 others; those
of the quick preset on 4,000 images of the bundled sample, judged by 1,000 others. Test images
have no part in that. Needs CIFAR-10 (simclr_data). What is finished is kept, runs in
runs/record (another folder: --out) and figures in record.json, and not done again.
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
from simclr_nb.report import evaluate_run
from simclr_nb.runs import TrainConfig, read_run
from simclr_nb.train import pretrain

HERE = Path(__file__).resolve().parent
RESULTS = HERE / 'record.json'
OUT = Path('runs/record')
BASE = TrainConfig(width=16, groups=8, weight_standardised=True, head_hidden=256, batch=256,
                   temperature=.1, lr=2., warmup_epochs=.5, precision='float32', device='cpu')
QUICK = TrainConfig(temperature=.1, precision='float32', device='cpu') # as it was
SEEDS = dict(tried=(0,), quick=(0, 1), entries=(0, 1, 2)) # quick has few held-out images
# short runs, some ten minutes of one core each; what is not named is as in BASE
SMALL = dict(size=16, epochs=11)
FAST = SMALL | dict(lr=4.)
TRIED = {
    'views of 32 pixels': dict(epochs=3),
    'views of 24 pixels': dict(size=24, epochs=5),
    'views of 16 pixels': SMALL,
    'views of 16 pixels, rate 4': FAST,
    'views of 16 pixels, rate 8': SMALL | dict(lr=8.),
    'views of 16 pixels, rate 4, crops of at least a fifth': FAST | dict(min_crop=.2),
    'views of 16 pixels, rate 4, batches of 512': FAST | dict(batch=512),
    'views of 16 pixels, rate 4, temperature 0.2': FAST | dict(temperature=.2),
    'views of 16 pixels, rate 4, batches of 128': FAST | dict(batch=128),
    'views of 16 pixels, rate 4, grey for a tenth': FAST | dict(grey=.1),
    'views of 16 pixels, rate 4, a LayerNorm in the head': FAST | dict(head_norm=True),
    'views of 16 pixels, rate 4, 2 groups': FAST | dict(groups=2),
    'views of 16 pixels, rate 4, width 32': FAST | dict(width=32, epochs=5),
}
# some five minutes of one core each
STANDARDISED = dict(groups=8, weight_standardised=True)
TRIED_QUICK = {
    'as it was': dict(epochs=14),
    'standardised': dict(STANDARDISED, epochs=14),
    'standardised, views of 24 pixels': dict(STANDARDISED, size=24, epochs=24),
    'standardised, views of 16 pixels': dict(STANDARDISED, size=16, epochs=54),
    'standardised, views of 16 pixels, rate 4':
        dict(STANDARDISED, size=16, epochs=54, lr=4.),
    'standardised, views of 16 pixels, rate 4, crops of at least a fifth':
        dict(STANDARDISED, size=16, epochs=54, lr=4., min_crop=.2),
    'standardised, views of 16 pixels, rate 4, 2 groups':
        dict(STANDARDISED, size=16, epochs=54, lr=4., groups=2),
    'standardised, views of 16 pixels, rate 4, batches of 256':
        dict(STANDARDISED, size=16, epochs=54, lr=4., batch=256),
}
EVALUATED = 32 # pixels that images are brought to for their features


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
               for size in sorted({config.size, EVALUATED})}
    return dict(by_size=by_size, core_minutes=round(minutes, 1), updates=len(history),
                loss=history[-1]['loss'], settings=asdict(config),
                on=describe_machine(torch.device('cpu')))


def entry(name, seed):
    "What `simclr_evaluate` says of an entry's encoder, and the minutes of its training"
    config = replace(ENTRIES[name], seed=seed)
    folder = OUT / f'{name}, seed {seed}'.replace(', ', '-').replace(' ', '-')
    train, test = cifar10('train'), cifar10('test')
    if not (folder / 'head.safetensors').exists():
        pretrain(config, train, folder=folder, resume=folder.exists(),
                 about=dict(data='cifar10'))
    _, machine, history = read_run(folder)
    rows = {row['name']: row for row in evaluate_run(folder, train, test)['rows']}
    return dict(knn=rows['SimCLR']['knn'], linear=rows['SimCLR']['linear'],
                random_knn=rows['random initialisation']['knn'],
                random_linear=rows['random initialisation']['linear'],
                minutes=round(history[-1]['seconds'] / 60, 2), updates=len(history),
                loss=history[-1]['loss'], settings=asdict(config), machine=machine)


def read_results():
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def keep(part, key, figures):
    results = read_results()
    results.setdefault(part, {})[key] = figures
    write_json(RESULTS, results)


def enter(name, seeds):
    for seed in seeds:
        key = f'{name}, seed {seed}'
        if key not in read_results().get('entries', {}):
            figures = entry(name, seed)
            print(key, figures['knn'], figures['linear'], figures['minutes'], flush=True)
            keep('entries', key, figures)


def try_out(part, names):
    if part == 'tried':
        base, tried, images, fraction = BASE, TRIED, cifar10('train'), .1
    else:
        base, tried, images, fraction = QUICK, TRIED_QUICK, sample('train'), .2
    for seed in SEEDS[part]:
        for name in names or tried:
            key = f'{name}, seed {seed}'
            if key not in read_results().get(part, {}):
                config = replace(base, **tried[name], seed=seed)
                figures = short_run(config, images, fraction)
                print(key, figures['by_size'], figures['core_minutes'], flush=True)
                keep(part, key, figures)


def main(words):
    keep_freed_memory()
    if words[:1] == ['enter']:
        enter(words[1], [int(word) for word in words[2:]] or SEEDS['entries'])
    elif words[:1] in (['try'], ['quick']):
        try_out('tried' if words[0] == 'try' else 'quick', words[1:])
    else:
        sys.exit(__doc__)


if __name__ == '__main__':
    words = sys.argv[1:]
    if '--out' in words:
        i = words.index('--out')
        OUT = Path(words[i + 1])
        del words[i:i + 2]
    main(words)
