"""Batch size against temperature, as in the paper's Appendix B.9: SimCLR on the bundled sample,
with every base learning rate, at a short and at a longer budget.

    OMP_NUM_THREADS=1 python bench/grid.py    # an hour of one core for each learning rate
    python bench/grid.py cell 'rate 1.0, 16 epochs, N 256, tau 0.1' 7    # one, with your seed

Every budget is whole at the first learning rate before the next rate begins. What is finished
is kept, runs in runs/grid (another folder: --out) and figures in grid.json, so the script can
be stopped at any time.
"""
import json
import sys
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

import torch

from long_runs import finished_run, need, take_folder
from simclr_nb.checkpoints import load_model
from simclr_nb.core import describe_machine, keep_freed_memory, write_json
from simclr_nb.data import sample
from simclr_nb.evaluate import embed, knn_accuracy, linear_probe
from simclr_nb.runs import TrainConfig

HERE = Path(__file__).resolve().parent
RESULTS = HERE / 'grid.json'
OUT = Path('runs/grid')
SETTINGS = TrainConfig(width=8, groups=8, weight_standardised=True, size=16, embed_size=32,
                       precision='float32', device='cpu', checkpoint_minutes=5.)
BATCHES = (64, 256, 1024, 2048)
TEMPERATURES = (.1, .2, .5, 1.)
RATES = (1., .5, 1.5) # base learning rates of LARS; B.9 averages over them
EPOCHS = (16, 64) # of 5,000 images


def cells():
    "(key, settings), each budget of a rate after the other"
    for rate, epochs, batch, temperature in product(RATES, EPOCHS, BATCHES, TEMPERATURES):
        key = f'rate {rate}, {epochs} epochs, N {batch}, tau {temperature}'
        yield key, replace(SETTINGS, batch=batch, temperature=temperature, lr=rate,
                           epochs=epochs, warmup_epochs=epochs / 10)


def cell_figures(key, config, train, test):
    folder = OUT / key.replace(', ', '-').replace(' ', '-')
    _, history = finished_run(config, train, folder, progress=False)
    encoder = load_model(folder).encoder
    train_h, test_h = embed(encoder, train), embed(encoder, test)
    return dict(knn=knn_accuracy(train_h, train.labels, test_h, test.labels),
                linear=linear_probe(train_h, train.labels, test_h, test.labels),
                loss=history[-1]['loss'], updates=len(history),
                minutes=round(history[-1]['seconds'] / 60, 1), settings=asdict(config),
                on=describe_machine(torch.device('cpu')))


def read_results():
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def all_cells(train, test):
    for key, config in cells():
        if key not in read_results():
            figures = cell_figures(key, config, train, test)
            print(key, figures['knn'], figures['linear'], figures['minutes'], flush=True)
            write_json(RESULTS, read_results() | {key: figures})


def main(words):
    keep_freed_memory()
    train, test = sample('train'), sample('test')
    if words[:1] == ['cell'] and len(words) == 3: # nothing is written to grid.json
        config = replace(need(words[1], dict(cells()), 'cell'), seed=int(words[2]))
        print(cell_figures(f'{words[1]}, seed {config.seed}', config, train, test))
    elif words:
        sys.exit(__doc__)
    else:
        all_cells(train, test)


if __name__ == '__main__':
    words = sys.argv[1:]
    OUT = take_folder(words, OUT)
    main(words)
