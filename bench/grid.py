"""Batch size against temperature, as in the paper's Appendix B.9: SimCLR on the bundled sample,
with every base learning rate, at a short and at a longer budget.

    OMP_NUM_THREADS=1 python bench/grid.py    # an hour of one core for each learning rate
    OMP_NUM_THREADS=1 python bench/grid.py 'rate 0.5, 64'    # only cells that begin so
    OMP_NUM_THREADS=1 python bench/grid.py untrained    # networks before their first step
    python bench/grid.py cell 'rate 1.0, 16 epochs, N 256, tau 0.1' 7    # one, with your seed

Every budget is whole at the first learning rate before the next rate begins. What is finished
is kept, runs in runs/grid (another folder: --out) and figures in grid.json, so the script can
be stopped at any time.
"""
import sys
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

from long_runs import (accuracies, finished_run, is_stored, keep_result, need, need_beginning,
                       read_results, take_folder)
from simclr_nb.checkpoints import load_model
from simclr_nb.core import keep_freed_memory
from simclr_nb.data import sample
from simclr_nb.runs import TrainConfig, build_model

HERE = Path(__file__).resolve().parent
RESULTS = HERE / 'grid.json'
OUT = Path('runs/grid')
SETTINGS = TrainConfig(width=8, groups=8, weight_standardised=True, size=16, embed_size=32,
                       precision='float32', device='cpu', compile=False, checkpoint_minutes=5.)
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


def untrained_figures(train, test, seeds=range(5)):
    "Accuracies of networks before their first step, by seed"
    figures = {}
    for seed in seeds:
        encoder = build_model(replace(SETTINGS, seed=seed)).encoder.eval()
        figures[f'seed {seed}'] = accuracies(encoder, train, test)
    return figures


def cell_figures(key, config, train, test):
    folder = OUT / key.replace(', ', '-').replace(' ', '-')
    machine, history = finished_run(config, train, folder, progress=False)
    figures = accuracies(load_model(folder).encoder, train, test)
    return figures | dict(loss=history[-1]['loss'], updates=len(history),
                          minutes=round(history[-1]['seconds'] / 60, 1),
                          settings=asdict(config), on=machine)


def some_cells(beginning, train, test):
    need_beginning(beginning, [key for key, _ in cells()])
    for key, config in cells():
        if key.startswith(beginning) and not is_stored(key, read_results(RESULTS), config):
            figures = cell_figures(key, config, train, test)
            print(key, figures['knn'], figures['linear'], figures['minutes'], flush=True)
            keep_result(RESULTS, [key], figures)


def main(words):
    keep_freed_memory()
    train, test = sample('train'), sample('test')
    if words[:1] == ['cell'] and len(words) == 3: # nothing is written to grid.json
        config = replace(need(words[1], dict(cells()), 'cell'), seed=int(words[2]))
        print(cell_figures(f'{words[1]}, seed {config.seed}', config, train, test))
    elif words == ['untrained']:
        keep_result(RESULTS, ['untrained'], untrained_figures(train, test))
    elif len(words) < 2:
        some_cells(''.join(words), train, test)
    else:
        sys.exit(__doc__)


if __name__ == '__main__':
    words = sys.argv[1:]
    OUT = take_folder(words, OUT)
    main(words)
