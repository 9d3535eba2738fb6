"""What the exact gradient of a large batch is worth: SimCLR on CIFAR-10 with

(a) the exact batch of N images,
(b) plain accumulation: the mean of the losses of k parts, whose images see no other part's,
(c) a batch of N/k images alone, with the learning rate by the rule: as many images as (a), in k
    times the updates, and as many updates, with a k-th of the images.

    OMP_NUM_THREADS=1 python bench/exactness.py          # the rows: some hours of one core
    OMP_NUM_THREADS=1 python bench/exactness.py micro    # only the part about micro-batches
    OMP_NUM_THREADS=1 python bench/exactness.py gradients    # only that about directions
    python bench/exactness.py row 'N 1024, tau 0.1, exact' 7    # one row with a seed of yours

The runs see 43,008 of the training images, in views of 16x16 pixels. The base learning rate of
each row is the best of three, or of more while the best is the smallest or the largest, by
5,000 other training images and the first seed; the other seeds keep it. Only then are the test
images looked at, once. Needs CIFAR-10 (simclr_data), but for `micro` and `gradients`. What is
finished is kept, runs in runs/exactness (another folder: --out) and figures in exactness.json,
so the script can be stopped at any time.
"""
import json
import sys
import time
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import torch
import torch.nn.functional as F

from long_runs import finished_run, need, take_folder
from simclr_nb.accumulate import accumulate
from simclr_nb.checkpoints import load_model
from simclr_nb.cifar import cifar10
from simclr_nb.core import describe_machine, keep_freed_memory, write_json
from simclr_nb.data import hold_out, sample
from simclr_nb.evaluate import embed, knn_accuracy, linear_probe
from simclr_nb.ntxent import nt_xent
from simclr_nb.runs import TrainConfig
from simclr_nb.train import prepare, step_views, update

HERE = Path(__file__).resolve().parent
RESULTS = HERE / 'exactness.json'
OUT = Path('runs/exactness')
SETTINGS = TrainConfig(width=8, precision='float32', device='cpu',
                       checkpoint_minutes=5.)
SAMPLE_IMAGES = 96_000 # that a run on the sample sees, for `gradients`: 24 epochs of 4,000

# the rows about features
FEATURES = replace(SETTINGS, size=16, embed_size=32, groups=8, weight_standardised=True)
KEPT = 43_008 # images to learn from: every batch size here divides them
EPOCHS = 4
LONGER = 4 # times as many, for the rows that ask whether length matters
RATES = (1., 2., 4.) # base learning rates of LARS
LEAST_RATE, LARGEST_RATE = .25, 16.
PARTS = (4, 16)
BANK = 10_000 # labelled training images for kNN and the linear probe
SEEDS = (0, 1, 2)


# the three ways

def parts_loss(z, parts, temperature): # (2N, D), rows i and i+N a pair
    "The mean of NT-Xent over the parts of a batch, N / parts images each"
    by_part = z.view(2, parts, -1, z.shape[1]).transpose(0, 1)
    losses = [nt_xent(part.flatten(0, 1), temperature) for part in by_part]
    return torch.stack(losses).mean()


def rows_of(n, temperature):
    "(name, settings of the run, parts of its loss)"
    place = f'N {n}, tau {temperature}'
    whole = dict(batch=n, temperature=temperature, epochs=EPOCHS)
    yield f'{place}, exact', whole, 1
    for k in PARTS:
        yield f'{place}, plain in {k} parts', whole, k
    for k in PARTS:
        alone = whole | dict(batch=n // k)
        yield f'{place}, {n // k} alone, equal images', alone, 1
        yield f'{place}, {n // k} alone, equal updates', alone | dict(epochs=EPOCHS / k), 1


def longer_rows(temperature):
    "Some of them again, in runs of several times the length"
    longer = dict(batch=1024, temperature=temperature, epochs=LONGER * EPOCHS)
    for k in (1, 16):
        way = f'plain in {k} parts' if k > 1 else 'exact'
        yield f'N 1024, tau {temperature}, {way}, longer', longer, k


def tables():
    "All rows, as lists that get all their seeds one after the other, the most telling first"
    yield [*rows_of(1024, .1), *rows_of(1024, .5)]
    yield [*rows_of(1024, .2), *longer_rows(.1), *rows_of(256, .1), *rows_of(2048, .1)]


def run_config(settings, seed, rate):
    "The settings of a run, and how many of the images it learns from"
    epochs = max(round(settings['epochs']), 1) # less than a pass: a pass over fewer images
    config = replace(FEATURES, batch=settings['batch'], temperature=settings['temperature'],
                     epochs=epochs, warmup_epochs=epochs / 10, seed=seed, lr=rate)
    return config, round(KEPT * settings['epochs'] / epochs)


def trained(settings, parts, seed, rate, train):
    "The model of a run, trained unless it is there, and its history"
    config, images = run_config(settings, seed, rate)
    # by its settings: rows may share a run
    folder = OUT / (f'batch-{config.batch}-tau-{config.temperature}-epochs-'
                    f"{settings['epochs']}-parts-{parts}-rate-{rate}-seed-{seed}")
    loss = None
    if parts > 1:
        loss = partial(parts_loss, parts=parts, temperature=config.temperature)
    _, history = finished_run(config, train[:images], folder, progress=False, loss=loss)
    return load_model(folder), history


def accuracies(model, bank, test):
    bank_h, test_h = embed(model.encoder, bank), embed(model.encoder, test)
    return dict(knn=knn_accuracy(bank_h, bank.labels, test_h, test.labels),
                linear=linear_probe(bank_h, bank.labels, test_h, test.labels))


def held_out_score(found): # kNN and linear accuracy
    return found['knn'] + found['linear']


def best_rate(settings, parts, train, held_out):
    "The rate with the best accuracy on held-out images, and those of all that were tried"
    tried, wanted = {}, list(RATES)
    while wanted:
        for rate in wanted:
            model, history = trained(settings, parts, 0, rate, train)
            tried[rate] = accuracies(model, train[:BANK], held_out)
            tried[rate] |= dict(loss=history[-1]['loss'])
        best = max(tried, key=lambda rate: held_out_score(tried[rate]))
        wanted = []
        if best == min(tried) and best > LEAST_RATE:
            wanted = [best / 2]
        elif best == max(tried) and best < LARGEST_RATE:
            wanted = [best * 2]
    return best, tried


def loss_curve(history, points=12):
    "The mean loss of so many stretches of a run, one after the other"
    losses = torch.tensor([row['loss'] for row in history])
    return [round(stretch.mean().item(), 3) for stretch in losses.tensor_split(points)]


def row_figures(settings, parts, seed, rate, train, test):
    "The accuracy on test images"
    model, history = trained(settings, parts, seed, rate, train)
    return dict(rate=rate, updates=len(history), loss=history[-1]['loss'],
                minutes=round(history[-1]['seconds'] / 60, 1), **settings, parts=parts,
                loss_curve=loss_curve(history), **accuracies(model, train[:BANK], test))


# the same run in other micro-batches

def trajectory(config, images, dtype, updates):
    "(loss, all weights in a row, as float64) of each of the first updates of a run"
    training = prepare(config, images)
    training.model.to(dtype)
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


def sample_run(temperature, train):
    "The model of a run on the sample with the exact gradient of 256 images"
    epochs = SAMPLE_IMAGES // (len(train) // 256 * 256)
    config = replace(SETTINGS, batch=256, temperature=temperature, epochs=epochs,
                     warmup_epochs=epochs / 10)
    folder = OUT / f'sample-tau-{temperature}'
    finished_run(config, train, folder, progress=False)
    return load_model(folder)


def gradients(train, temperatures=(.1, .5), batch=1024, batches=9):
    "`agreement` before training, and after `sample_run`"
    figures = {}
    for temperature in temperatures:
        config = replace(SETTINGS, batch=batch, temperature=temperature, epochs=5)
        training = prepare(config, train)
        trained_model = sample_run(temperature, train)
        for when, model in (('untrained', training.model), ('trained', trained_model.train())):
            name = f'tau {temperature}, {when}'
            figures[name] = agreement(model, training, temperature, batches)
            print(name, figures[name], flush=True)
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
    first = read_results().get(f'{wanted}, seed 0')
    if first is None:
        sys.exit(f'no rate has been chosen for {wanted!r} yet: its row with seed 0 comes first')
    train, _, test = images_for_rows()
    return row_figures(settings, parts, seed, first['rate'], train, test)


def all_rows():
    train, held_out, test = images_for_rows()
    for table, seed in product(tables(), SEEDS):
        for name, settings, parts in table:
            results = read_results()
            key = f'{name}, seed {seed}'
            if key in results:
                continue
            start = time.perf_counter()
            if seed == 0:
                rate, tried = best_rate(settings, parts, train, held_out)
                found = dict(tried={str(rate): tried[rate] for rate in sorted(tried)})
            else:
                rate, found = results[f'{name}, seed 0']['rate'], {}
            found |= row_figures(settings, parts, seed, rate, train, test)
            keep(key, found, time.perf_counter() - start)


def read_results():
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def keep(key, figures, seconds):
    results = read_results()
    machine = describe_machine(torch.device('cpu'))
    results[key] = figures | dict(seconds=round(seconds), on=machine)
    write_json(RESULTS, results)
    print(key, figures, flush=True)


def main(wanted):
    keep_freed_memory()
    start = time.perf_counter()
    if wanted == ['micro']:
        keep('micro-batches', micro_batches(), time.perf_counter() - start)
    elif wanted == ['gradients']:
        train, _ = hold_out(sample('train'))
        keep('gradients', gradients(train), time.perf_counter() - start)
    elif wanted[:1] == ['row'] and len(wanted) == 3:
        print(one_row(wanted[1], int(wanted[2])))
    elif not wanted:
        all_rows()
    else:
        sys.exit(__doc__)


if __name__ == '__main__':
    words = sys.argv[1:]
    OUT = take_folder(words, OUT)
    main(words)
