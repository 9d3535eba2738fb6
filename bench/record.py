"""The best encoder that SimCLR trains on all of CIFAR-10 in 30 minutes, and in 3 hours, of two
CPU cores. The rules stand in README.md.

    OMP_NUM_THREADS=1 python bench/record.py try [NAME ..]    # short runs, held-out images
    OMP_NUM_THREADS=1 python bench/record.py quick [NAME ..]    # the same for the quick preset
    OMP_NUM_THREADS=1 python bench/record.py preset [SEED ..]    # that preset, on test images
    OMP_NUM_THREADS=2 python bench/record.py enter '30 minutes' [SEED ..]    # the record itself
    OMP_NUM_THREADS=2 python bench/record.py enter '3 hours' [SEED ..]
    python bench/record.py store    # the entry that the notebooks show, into nbs/stored/record

Settings are chosen by short runs on 45,000 training images, judged by the 5,000 others; those
of the quick preset on the 5,000 of the bundled sample, judged by 10,000 training images that
are not in it. Test images have no part in that. Needs CIFAR-10 (simclr_data). What is finished
is kept, runs in runs/record (another folder: --out) and figures in record.json, and not done
again.
"""
import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors.torch import save

from long_runs import (accuracies, finished_run, is_stored, keep_result, need, read_results,
                       take_folder)
from simclr_nb.checkpoints import load_model
from simclr_nb.cifar import cifar10
from simclr_nb.core import atomic_path, describe_machine, keep_freed_memory
from simclr_nb.data import hold_out, sample
from simclr_nb.report import evaluate_run
from simclr_nb.resnet import save_encoder
from simclr_nb.runs import PRESETS, TrainConfig, read_run
from simclr_nb.train import pretrain

HERE = Path(__file__).resolve().parent
RESULTS = HERE / 'record.json'
OUT = Path('runs/record')
BASE = TrainConfig(width=16, groups=8, weight_standardised=True, head_hidden=256, batch=256,
                   temperature=.1, lr=2., warmup_epochs=.5, precision='float32', device='cpu',
                   compile=False)
QUICK = TrainConfig(temperature=.1, precision='float32', device='cpu', # as it was
                    compile=False)
SEEDS = (0, 1, 2) # of what test images see; settings are tried out with the first
# the entries
WIDE = replace(BASE, width=32, size=16, embed_size=32, lr=4., min_crop=.2, warmup_epochs=1.)
ENTRIES = {'30 minutes': replace(WIDE, epochs=17),
           '3 hours': replace(WIDE, epochs=45, compile=True),
           '3 hours, 100 epochs': replace(WIDE, epochs=100)}
HOURS = {'30 minutes': .5, '3 hours': 3., '3 hours, 100 epochs': 3.} # that an entry may take
# short runs, some ten minutes of one core each; what is not named is as in BASE
SMALL = dict(size=16, epochs=11)
FAST = SMALL | dict(lr=4.)
CROPS = FAST | dict(min_crop=.2)
TRIED = {
    'views of 32 pixels': dict(epochs=3),
    'views of 24 pixels': dict(size=24, epochs=5),
    'views of 16 pixels': SMALL,
    'views of 16 pixels, 9 epochs': SMALL | dict(epochs=9),
    'views of 16 pixels, rate 4': FAST,
    'views of 16 pixels, rate 8': SMALL | dict(lr=8.),
    'views of 16 pixels, rate 4, crops of at least a fifth': CROPS,
    'views of 16 pixels, rate 4, crops of at least two fifths': FAST | dict(min_crop=.4),
} | {f'views of 16 pixels, rate 4, crops of at least a fifth, {what}': CROPS | other
     for what, other in (('width 32', dict(width=32, epochs=5)),
                         ('batches of 512', dict(batch=512)),
                         ('temperature 0.2', dict(temperature=.2)),
                         ('grey for a tenth', dict(grey=.1)),
                         ('a LayerNorm in the head', dict(head_norm=True)),
                         ('batches of 128', dict(batch=128)),
                         ('2 groups', dict(groups=2)))}
# some five minutes of one core each
STANDARDISED = dict(groups=8, weight_standardised=True)
QUICK_SMALL = dict(STANDARDISED, size=16, epochs=50, lr=4.)
QUICK_CROPS = QUICK_SMALL | dict(min_crop=.2)
TRIED_QUICK = {
    'views of 16 pixels, rate 4': QUICK_SMALL,
    'views of 16 pixels, rate 4, crops of at least a fifth': QUICK_CROPS,
    'views of 24 pixels, rate 4, crops of at least a fifth':
        QUICK_CROPS | dict(size=24, epochs=22),
} | {f'views of 16 pixels, rate 4, crops of at least a fifth, {what}': QUICK_CROPS | other
     for what, other in (('width 24', dict(width=24, epochs=25)),
                         ('batches of 64', dict(batch=64)),
                         ('width 24, 40 epochs', dict(width=24, epochs=40)),
                         ('batches of 256', dict(batch=256)),
                         ('temperature 0.2', dict(temperature=.2)),
                         ('2 groups', dict(groups=2)))
} | {f'views of 16 pixels, rate 4, crops of at least a fifth, width 24, 40 epochs, {what}':
         QUICK_CROPS | dict(width=24, epochs=40) | other
     for what, other in (('temperature 0.2', dict(temperature=.2)),
                         ('a head of three layers', dict(head_layers=3)),
                         ('crops of at least three tenths', dict(min_crop=.3)),
                         ('rate 6', dict(lr=6.)),
                         ('batches of 64', dict(batch=64)),
                         ('grey for a tenth', dict(grey=.1)),
                         ('crops of at least four tenths', dict(min_crop=.4)),
                         ('crops of at least three tenths, rate 6',
                          dict(min_crop=.3, lr=6.)),
                         ('crops of at least three tenths, 60 epochs',
                          dict(min_crop=.3, epochs=60)))
} | {
    'as it was': dict(epochs=14),
    'standardised weights, 8 groups': dict(STANDARDISED, epochs=14),
    'views of 16 pixels': QUICK_SMALL | dict(lr=2.),
}
EVALUATED = 32 # pixels that images are brought to for their features
MORE_SIZES = {'views of 16 pixels, rate 4': (24, 40)} # for which other sizes are looked at, too


def short_run(config, kept, held_out, more_sizes):
    "Accuracies on held-out images, with a bank of 10,000 others, and minutes of one core"
    start = time.process_time()
    model, history = pretrain(config, kept, progress=False)
    minutes = (time.process_time() - start) / 60
    by_size = {str(size): accuracies(model.encoder, kept[:10_000], held_out, size)
               for size in sorted({config.size, EVALUATED, *more_sizes})}
    return dict(by_size=by_size, core_minutes=round(minutes, 1), updates=len(history),
                loss=history[-1]['loss'], settings=asdict(config),
                on=describe_machine(torch.device('cpu')))


def folder_of(name): # such as '3 hours, seed 0'
    return OUT / name.replace(', ', '-').replace(' ', '-')


def whole_run(name, config, data, train, test, most_minutes): # data: cifar10 or sample
    "What `simclr_evaluate` says of the encoder of a run, and the minutes of its training"
    folder = folder_of(name)
    machine, history = finished_run(config, train, folder, about=dict(data=data))
    if history[-1]['seconds'] > 60 * most_minutes: # before a look at the test images
        sys.exit(f'{name} took longer than its {most_minutes:g} minutes')
    rows = {row['name']: row for row in evaluate_run(folder, train, test)['rows']}
    return dict(knn=rows['SimCLR']['knn'], linear=rows['SimCLR']['linear'],
                random_knn=rows['random initialisation']['knn'],
                random_linear=rows['random initialisation']['linear'],
                minutes=round(history[-1]['seconds'] / 60, 2), updates=len(history),
                loss=history[-1]['loss'], settings=asdict(config), machine=machine)


def is_kept(part, key, config):
    return is_stored(key, read_results(RESULTS).get(part, {}), config)


def whole_runs(part, name, config, seeds, data, most_minutes=float('inf')):
    read = {'cifar10': cifar10, 'sample': sample}[data]
    train, test = read('train'), read('test')
    for seed in seeds:
        key, of_seed = f'{name}, seed {seed}', replace(config, seed=seed)
        if not is_kept(part, key, of_seed):
            figures = whole_run(key, of_seed, data, train, test, most_minutes)
            print(key, figures['knn'], figures['linear'], figures['minutes'], flush=True)
            keep_result(RESULTS, [part, key], figures)


def try_out(part, names):
    if part == 'tried':
        base, tried, (kept, held_out) = BASE, TRIED, hold_out(cifar10('train'), .1)
    else: # the sample holds the first images of each class, all among the first 6,000
        base, tried, kept = QUICK, TRIED_QUICK, sample('train')
        held_out = cifar10('train')[-10_000:]
    for name in names or tried:
        need(name, tried, 'trial')
        key, config = f'{name}, seed 0', replace(base, **tried[name])
        if not is_kept(part, key, config):
            more_sizes = MORE_SIZES.get(name, ()) if part == 'tried' else ()
            figures = short_run(config, kept, held_out, more_sizes)
            print(key, figures['by_size'], figures['core_minutes'], flush=True)
            keep_result(RESULTS, [part, key], figures)


def store(name='3 hours, 100 epochs, seed 0', folder=HERE.parent / 'nbs/stored/record',
          every=50):
    """What the notebooks need of an entry: settings, machine, results, every 50th step, encoder
    and head in half precision"""
    config, _, history = read_run(folder_of(name))
    model = load_model(folder_of(name)).half()
    folder.mkdir(parents=True, exist_ok=True)
    save_encoder(model.encoder, folder / 'encoder', overwrite=True,
                 size=config.embed_size or config.size)
    rows = [row for row in history if row['step'] % every == 0 or row is history[-1]]
    files = {file: (folder_of(name) / file).read_bytes()
             for file in ('settings.json', 'machine.json', 'results.json')}
    files['head.safetensors'] = save(model.head.state_dict())
    files['metrics.jsonl'] = ''.join(json.dumps(row) + '\n' for row in rows).encode()
    for file, content in files.items():
        with atomic_path(folder / file, overwrite=True) as temporary:
            temporary.write_bytes(content)


def main(words):
    keep_freed_memory()
    if words[:1] == ['enter'] and len(words) > 1:
        seeds = list(map(int, words[2:])) or SEEDS
        config = need(words[1], ENTRIES, 'entry')
        whole_runs('entries', words[1], config, seeds, 'cifar10', 60 * HOURS[words[1]])
    elif words[:1] == ['preset']:
        seeds = list(map(int, words[1:])) or SEEDS
        config = replace(PRESETS['quick'], device='cpu', compile=False)
        whole_runs('preset', 'quick', config, seeds, 'sample')
    elif words[:1] in (['try'], ['quick']):
        try_out('tried' if words[0] == 'try' else 'quick', words[1:])
    elif words == ['store']:
        store()
    else:
        sys.exit(__doc__)


if __name__ == '__main__':
    words = sys.argv[1:]
    OUT = take_folder(words, OUT)
    main(words)
