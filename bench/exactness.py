"""What the exact gradient of a large batch is worth: SimCLR on CIFAR-10 with

(a) the exact batch of N images,
(b) plain accumulation: the mean of the losses of k parts, whose images see no other part's,
(c) a batch of N/k images alone: as many images as (a), in k times the updates, and as many
    updates, with a k-th of the images.

    OMP_NUM_THREADS=1 python bench/exactness.py          # the rows: many hours of one core
    OMP_NUM_THREADS=1 python bench/exactness.py 'N 1024, tau 0.1'    # those that begin so
    OMP_NUM_THREADS=1 python bench/exactness.py micro    # only the part about micro-batches
    OMP_NUM_THREADS=1 python bench/exactness.py gradients    # only that about directions
    OMP_NUM_THREADS=1 python bench/exactness.py 'gradients of rows'    # the same in the rows
    OMP_NUM_THREADS=1 python bench/exactness.py 'gradients of longer rows'    # and in longer
    OMP_NUM_THREADS=1 python bench/exactness.py 'rates of longer rows'    # one for each of them
    OMP_NUM_THREADS=1 python bench/exactness.py 'longer rows at their rates'    # and the rows
    OMP_NUM_THREADS=1 python bench/exactness.py 'longer rows at their rates' 64    # in 64 parts
    OMP_NUM_THREADS=1 python bench/exactness.py untrained    # networks before their first step
    python bench/exactness.py row 'N 1024, tau 0.1, exact' 7    # one row with a seed of yours

The runs see 43,008 of the training images, in views of 16x16 pixels. The base learning rate of
each row is the best of three, or of more while the best is the smallest or the largest: by
accuracy on 5,000 other training images, in the mean of two seeds that only choose. (A longer
row has the rate of the short one; at a rate of their own, chosen by one seed, longer rows stand
apart.) Then come other seeds and the test images, which are looked at once. Needs CIFAR-10
(simclr_data), but for `micro`. What is finished is kept, runs in runs/exactness (another
folder: --out) and figures in exactness.json, so the script can be stopped at any time.
"""
import copy
import sys
from dataclasses import asdict, replace
from functools import partial
from itertools import product
from pathlib import Path

import torch
import torch.nn.functional as F

from long_runs import (accuracies, finished_run, is_stored, keep_result, need,
                       need_beginning, read_results, take_folder)
from simclr_nb.accumulate import accumulate
from simclr_nb.checkpoints import load_model
from simclr_nb.cifar import cifar10
from simclr_nb.core import describe_machine, keep_freed_memory
from simclr_nb.data import hold_out, sample
from simclr_nb.ntxent import nt_xent
from simclr_nb.runs import TrainConfig, build_model
from simclr_nb.train import prepare, pretrain, step_views, update

HERE = Path(__file__).resolve().parent
RESULTS = HERE / 'exactness.json'
OUT = Path('runs/exactness')
SETTINGS = TrainConfig(width=8, precision='float32', device='cpu', compile=False,
                       checkpoint_minutes=5.)
SAMPLE_EPOCHS = 25 # of the runs on the sample, for `gradients`

# the rows about features
FEATURES = replace(SETTINGS, size=16, embed_size=32, groups=8, weight_standardised=True)
KEPT = 43_008 # images to learn from: every batch size here divides them
EPOCHS = 4
LONGER = 4 # times as many, for the rows that ask whether length matters
LONGER_ROW = ', longer' # how their names end
RATES = (1., 2., 4.) # base learning rates of LARS
LONGER_RATES = (.5, 1., 2., 4.) # to choose from for longer rows at a rate of their own
LEAST_RATE, LARGEST_RATE = .25, 16.
PARTS = (4, 16)
BANK = 10_000 # labelled training images for kNN and the linear probe
CHOOSING_SEEDS = (100, 101) # of the runs that choose a rate, and have no other part
SEEDS = (0, 1, 2, 3, 4)
LONGER_SEEDS = range(10) # the first five of them left it open


# the three ways

def parts_loss(z, parts, temperature): # (2N, D), rows i and i+N a pair
    "The mean of NT-Xent over the parts of a batch, N / parts images each"
    by_part = z.view(2, parts, -1, z.shape[1]).transpose(0, 1)
    losses = [nt_xent(part.flatten(0, 1), temperature) for part in by_part]
    return torch.stack(losses).mean()


def rows_of(n, temperature):
    "(name, settings of the run, parts of its loss)"
    place = f'N {n}, tau {temperature}'
    whole = dict(batch=n, temperature=temperature, epochs=EPOCHS, micro_batch=512)
    yield f'{place}, exact', whole, 1
    for k in PARTS:
        yield f'{place}, plain in {k} parts', whole, k
    for k in PARTS:
        alone = whole | dict(batch=n // k, micro_batch=None)
        yield f'{place}, {n // k} alone, equal images', alone, 1
        yield f'{place}, {n // k} alone, equal updates', alone | dict(epochs=EPOCHS / k), 1


def small_parts(temperature, k=64):
    "Plain accumulation whose parts have so few images that its gradient should suffer"
    whole = dict(batch=1024, temperature=temperature, epochs=EPOCHS, micro_batch=512)
    yield f'N 1024, tau {temperature}, plain in {k} parts', whole, k


def longer_rows(temperature):
    "Some of them again, in runs of several times the length, at the rate of the short ones"
    longer = dict(batch=1024, temperature=temperature, epochs=LONGER * EPOCHS)
    for k in (1, 64, 16):
        way = f'plain in {k} parts' if k > 1 else 'exact'
        yield f'N 1024, tau {temperature}, {way}{LONGER_ROW}', longer, k


def tables():
    "All rows, as lists that get all their seeds one after the other, the most telling first"
    yield [*rows_of(1024, .1)]
    yield [*rows_of(1024, .5)]
    yield [*small_parts(.1), *small_parts(.5)]
    yield [*longer_rows(.1), *rows_of(1024, .2), *rows_of(256, .1), *rows_of(2048, .1)]


def run_config(settings, seed, rate):
    "The settings of a run, and how many of the images it learns from"
    epochs = max(round(settings['epochs']), 1) # less than a pass: a pass over fewer images
    config = replace(FEATURES, **settings | dict(epochs=epochs), warmup_epochs=epochs / 10,
                     seed=seed, lr=rate)
    return config, round(KEPT * settings['epochs'] / epochs)


def trained(settings, parts, seed, rate, train):
    "The model of a run, trained unless it is there, its machine and its history"
    config, images = run_config(settings, seed, rate)
    # by its settings: rows may share a run
    folder = OUT / (f'batch-{config.batch}-tau-{config.temperature}-epochs-'
                    f"{settings['epochs']}-parts-{parts}-rate-{rate}-seed-{seed}")
    loss = None
    if parts > 1:
        loss = partial(parts_loss, parts=parts, temperature=config.temperature)
    machine, history = finished_run(config, train[:images], folder, progress=False, loss=loss)
    return load_model(folder), machine, history


def held_out_score(found): # kNN and linear accuracy, of each choosing seed
    return sum(figures['knn'] + figures['linear'] for figures in found) / len(found)


def best_rate(settings, parts, train, held_out):
    "The rate with the best accuracy on held-out images, and those of all that were tried"
    tried, wanted = {}, list(RATES)
    while wanted:
        for rate in wanted:
            tried[rate] = []
            for seed in CHOOSING_SEEDS:
                model, _, history = trained(settings, parts, seed, rate, train)
                found = accuracies(model.encoder, train[:BANK], held_out)
                tried[rate].append(found | dict(loss=history[-1]['loss']))
        best = max(tried, key=lambda rate: held_out_score(tried[rate]))
        wanted = []
        if best == min(tried) and best > LEAST_RATE:
            wanted = [best / 2]
        elif best == max(tried) and best < LARGEST_RATE:
            wanted = [best * 2]
    return best, tried


def longer_at(name, rate, seed): # the key of such a run in the results
    return f'{name}, rate {rate}, seed {seed}'


def rates_of_longer_rows(rows, train, held_out):
    "The accuracy on held-out images that longer rows have at other rates, by one seed"
    for rate, (name, settings, parts) in product(LONGER_RATES, rows):
        seed = CHOOSING_SEEDS[0]
        key, (config, _) = longer_at(name, rate, seed), run_config(settings, seed, rate)
        if not is_stored(key, read_results(RESULTS), config):
            model, _, history = trained(settings, parts, seed, rate, train)
            found = accuracies(model.encoder, train[:BANK], held_out)
            keep(key, found | dict(loss=history[-1]['loss'], settings=asdict(config)))


def rate_of_longer(name, results):
    "The rate that was best for a longer row"
    tried = {rate: results[longer_at(name, rate, CHOOSING_SEEDS[0])] for rate in LONGER_RATES}
    return max(tried, key=lambda rate: held_out_score([tried[rate]]))


def longer_rows_at_their_rates(rows, train, test):
    for seed, (name, settings, parts) in product(LONGER_SEEDS, rows):
        rate = rate_of_longer(name, read_results(RESULTS))
        key, (config, _) = longer_at(name, rate, seed), run_config(settings, seed, rate)
        if not is_stored(key, read_results(RESULTS), config):
            keep(key, row_figures(settings, parts, seed, rate, train, test))


def loss_curve(history, points=12):
    "The mean loss of so many stretches of a run, one after the other"
    losses = torch.tensor([row['loss'] for row in history])
    return [round(stretch.mean().item(), 3) for stretch in losses.tensor_split(points)]


def row_figures(settings, parts, seed, rate, train, test):
    "The accuracy on test images"
    model, machine, history = trained(settings, parts, seed, rate, train)
    config, images = run_config(settings, seed, rate)
    return dict(rate=rate, batch=config.batch, updates=len(history), parts=parts, images=images,
                loss=history[-1]['loss'], loss_curve=loss_curve(history),
                minutes=round(history[-1]['seconds'] / 60, 1), settings=asdict(config),
                on=machine, **accuracies(model.encoder, train[:BANK], test))


def untrained_figures(train, test):
    "The accuracy on test images of networks before their first step"
    rows = {}
    for seed in SEEDS:
        model = build_model(replace(FEATURES, seed=seed)).eval()
        rows[f'seed {seed}'] = accuracies(model.encoder, train[:BANK], test)
    return rows


# the same run in other micro-batches

def trajectory(config, images, dtype, updates, nudged=False):
    """(loss, all weights in a row, as float64) of each of the first updates of a run

    Nudged: one weight begins at the next number that the dtype has."""
    training = prepare(config, images)
    training.model.to(dtype)
    if nudged:
        weight = next(training.model.parameters()).data.view(-1)
        weight[0] = torch.nextafter(weight[0], weight[0] + 1)
    training.forward = lambda views: training.model(views.to(dtype))
    for step in range(updates):
        row = update(training, step_views(training, step), step)
        weights = [p.detach().flatten().double() for p in training.model.parameters()]
        yield row['loss'], torch.cat(weights)


def distance(weights, others):
    "How far weights are from others, relative to their length"
    return ((weights - others).norm() / others.norm()).item()


def micro_batches(updates=(1, 5, 20, 50)):
    "How far the weights are from those of the whole batch of 256 images"
    config = replace(SETTINGS, batch=256, epochs=4, temperature=.1)
    figures = {}
    for dtype in (torch.float64, torch.float32):
        whole = list(trajectory(config, sample('train'), dtype, max(updates)))
        for micro_batch in (256, 128, 64, 32):
            in_chunks = replace(config, micro_batch=micro_batch)
            run = list(trajectory(in_chunks, sample('train'), dtype, max(updates)))
            figures[f'{dtype}, micro-batch {micro_batch}'] = {
                str(n): distance(run[n - 1][1], whole[n - 1][1]) for n in updates}
        run = list(trajectory(config, sample('train'), dtype, max(updates), nudged=True))
        figures[f'{dtype}, one weight nudged'] = {
            str(n): distance(run[n - 1][1], whole[n - 1][1]) for n in updates}
    return figures


# how far plain accumulation is from the exact gradient

def gradient(model, views, loss):
    "The gradient of all weights, in a row"
    model.zero_grad()
    accumulate(model, views, loss, micro_batch=256)
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def agreement(model, training, temperature, batches, counts=(4, 16, 64)):
    """Cosine between the exact gradient and that of plain accumulation in so many parts: the
    mean over batches, and that of the gradients' means over the batches; and the mean cosine
    between the exact gradients of two batches"""
    exact, plain = [], {k: [] for k in counts}
    for step in range(batches):
        views = step_views(training, step)
        exact.append(gradient(model, views, partial(nt_xent, temperature=temperature)))
        for k in counts:
            loss = partial(parts_loss, parts=k, temperature=temperature)
            plain[k].append(gradient(model, views, loss))
    exact, figures = torch.stack(exact), {}
    for k, found in plain.items():
        found = torch.stack(found)
        figures[f'{k} parts'] = F.cosine_similarity(exact, found).mean().item()
        figures[f'{k} parts, of means'] = F.cosine_similarity(exact.mean(0), found.mean(0),
                                                              dim=0).item()
    others = F.cosine_similarity(exact[:-1], exact[1:])
    return figures | {'another batch': others.mean().item()}


def effective_negatives(model, views, temperature):
    """How many negatives count for a view, the median over views: one over the sum of the
    squared weights exp(cosine / temperature), which are scaled to sum to one"""
    with torch.no_grad():
        u = F.normalize(model(views), dim=1)
    rows = torch.arange(len(u))
    weights = torch.exp(u @ u.T / temperature)
    weights[rows, rows] = 0. # a view itself
    weights[rows, rows.roll(len(u) // 2)] = 0. # its partner
    weights = weights / weights.sum(1, keepdim=True)
    return (1 / weights.square().sum(1)).median().item()


def gradients(train, fresh, temperatures=(.1, .5), seeds=(0, 1, 2), looks=(3, 25), batch=1024):
    """`agreement` before training and after some epochs of runs on the sample with the exact
    gradient of 256 images, by batches of images that were not trained on"""
    figures = {}
    for temperature, seed in product(temperatures, seeds):
        config = replace(SETTINGS, batch=256, temperature=temperature, epochs=SAMPLE_EPOCHS,
                         warmup_epochs=SAMPLE_EPOCHS / 10, seed=seed)
        training = prepare(replace(config, batch=batch), fresh)

        def look(epoch, model, history):
            if epoch == 0 or epoch in looks:
                model = copy.deepcopy(model) # its gradients are not those of the run
                found = agreement(model, training, temperature, len(fresh) // batch)
                views = step_views(training, 0)[:]
                found['effective negatives'] = effective_negatives(model, views, temperature)
                figures[f'tau {temperature}, epoch {epoch}, seed {seed}'] = found
                print(temperature, seed, epoch, found, flush=True)

        look(0, build_model(config), [])
        pretrain(config, train, progress=False, on_epoch=look)
    return figures


def directions_of_rows(rows, train, held_out, batches=4):
    "`agreement` in the networks of exact rows, after their runs, by held-out images"
    figures = {}
    for (name, settings, parts), seed in product(rows, SEEDS):
        rate = read_results(RESULTS)[f'{name.removesuffix(LONGER_ROW)}, rates']['best']
        model, _, _ = trained(settings, parts, seed, rate, train)
        config, _ = run_config(settings, seed, rate)
        training = prepare(config, held_out)
        found = agreement(model.train(), training, config.temperature, batches)
        views = step_views(training, 0)[:]
        found['effective negatives'] = effective_negatives(model, views, config.temperature)
        figures[f'tau {config.temperature}, seed {seed}'] = found
        print(config.temperature, seed, found, flush=True)
    return figures


# the command

def images_for_rows():
    "Images to learn from, those that choose the rate, and the test images"
    kept, held_out = hold_out(cifar10('train'), .1)
    return kept[:KEPT], held_out, cifar10('test')


def one_row(wanted, seed):
    "The figures of one row with any seed, at the rate found for it; nothing is written"
    found = {name: (settings, parts) for table in tables() for name, settings, parts in table}
    settings, parts = need(wanted, found, 'row')
    results = read_results(RESULTS)
    rate = results.get(f'{wanted.removesuffix(LONGER_ROW)}, rates', {}).get('best')
    if rate is None:
        sys.exit(f'no rate has been chosen for {wanted!r} yet')
    train, _, test = images_for_rows()
    return row_figures(settings, parts, seed, rate, train, test)


def chosen_rate(name, settings, parts, train, held_out):
    key, (config, images) = f'{name}, rates', run_config(settings, CHOOSING_SEEDS[0], RATES[0])
    if not is_stored(key, read_results(RESULTS), config):
        best, tried = best_rate(settings, parts, train, held_out)
        tried = {str(rate): tried[rate] for rate in sorted(tried)}
        keep(key, dict(best=best, tried=tried, images=images, settings=asdict(config)))
    return read_results(RESULTS)[key]['best']


def some_rows(beginning):
    rows = {name: (settings, parts) for table in tables() for name, settings, parts in table}
    need_beginning(beginning, rows)
    train, held_out, test = images_for_rows()
    for table, seed in product(tables(), LONGER_SEEDS):
        for name, settings, parts in table:
            seeds = LONGER_SEEDS if name.endswith(LONGER_ROW) else SEEDS
            if name.startswith(beginning) and seed in seeds:
                short = name.removesuffix(LONGER_ROW)
                rate = chosen_rate(short, *rows[short], train, held_out)
                config, _ = run_config(settings, seed, rate)
                key = f'{name}, seed {seed}'
                if not is_stored(key, read_results(RESULTS), config):
                    keep(key, row_figures(settings, parts, seed, rate, train, test))


def keep(key, figures):
    figures = dict(on=describe_machine(torch.device('cpu'))) | figures
    keep_result(RESULTS, [key], figures)
    print(key, figures, flush=True)


def main(wanted):
    keep_freed_memory()
    if wanted == ['micro']:
        keep('micro-batches', micro_batches())
    elif wanted == ['gradients']:
        fresh = cifar10('train')[-6144:] # the sample is from the first 6,000
        keep('directions', gradients(sample('train'), fresh))
    elif wanted == ['gradients of rows']:
        train, held_out, _ = images_for_rows()
        rows = [next(rows_of(1024, temperature)) for temperature in (.1, .5)]
        keep('directions of rows', directions_of_rows(rows, train, held_out))
    elif wanted == ['gradients of longer rows']:
        train, held_out, _ = images_for_rows()
        rows = [next(longer_rows(.1))]
        keep('directions of longer rows', directions_of_rows(rows, train, held_out))
    elif wanted[:1] in (['rates of longer rows'], ['longer rows at their rates']):
        train, held_out, test = images_for_rows()
        ways = list(map(int, wanted[1:])) or [1, 64] # parts
        rows = [row for row in longer_rows(.1) if row[2] in ways]
        if wanted[0].startswith('rates'):
            rates_of_longer_rows(rows, train, held_out)
        else:
            longer_rows_at_their_rates(rows, train, test)
    elif wanted == ['untrained']:
        train, _, test = images_for_rows()
        keep('untrained', untrained_figures(train, test))
    elif wanted[:1] == ['row'] and len(wanted) == 3:
        print(one_row(wanted[1], int(wanted[2])))
    elif len(wanted) < 2:
        some_rows(''.join(wanted))
    else:
        sys.exit(__doc__)


if __name__ == '__main__':
    words = sys.argv[1:]
    OUT = take_folder(words, OUT)
    main(words)
