"""What the exact gradient of a large batch is worth: SimCLR on the bundled sample with

(a) the exact batch of N images,
(b) plain accumulation: the mean of the losses of k parts, whose images see no other part's,
(c) a batch of N/k images alone, with the learning rate by the rule: as many images as (a), in k
    times the updates, and as many updates, with a k-th of the images.

    OMP_NUM_THREADS=1 python bench/exactness.py          # some tens of hours of one core
    OMP_NUM_THREADS=1 python bench/exactness.py micro    # only the part about micro-batches
    OMP_NUM_THREADS=1 python bench/exactness.py gradients    # only that about directions
    python bench/exactness.py row 'N 1024, tau 0.1, exact' 7    # one row with a seed of yours

The base learning rate of each row is the best of three by kNN on a fifth of the training
images, held out, with the first seed; the other seeds keep it. Only then are the test images
looked at, once. What is finished is kept, runs in runs/exactness (another folder: --out) and
figures in exactness.json, so the script can be stopped at any time.
"""
import json
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F

from simclr_nb.accumulate import accumulate
from simclr_nb.checkpoints import load_model
from simclr_nb.core import describe_machine, keep_freed_memory, write_json
from simclr_nb.data import hold_out, sample
from simclr_nb.evaluate import embed, knn_accuracy, linear_probe
from simclr_nb.ntxent import nt_xent
from simclr_nb.runs import TrainConfig, read_run
from simclr_nb.train import prepare, pretrain, step_views, update

HERE = Path(__file__).resolve().parent
RESULTS = HERE / 'exactness.json'
OUT = Path('runs/exactness')
IMAGES = 96_000 # that a run sees: 24 epochs of the 4,000 images it may learn from
LONGER = 4 # times as many, for the rows that ask whether length matters
SETTINGS = TrainConfig(width=8, precision='float32', device='cpu',
                       checkpoint_minutes=5.)
RATES = (1., 2., 4.) # base learning rates of LARS
BATCHES = (256, 1024, 2048)
PARTS = (4, 16)
MORE_PARTS = {1024: (64,)} # of plain accumulation
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
    whole = dict(batch=n, temperature=temperature, images=IMAGES)
    yield f'{place}, exact', whole, 1
    for k in (*PARTS, *MORE_PARTS.get(n, ())):
        yield f'{place}, plain in {k} parts', whole, k
    for k in PARTS:
        alone = whole | dict(batch=n // k)
        yield f'{place}, {n // k} alone, equal images', alone, 1
        fewer = alone | dict(images=IMAGES // k)
        yield f'{place}, {n // k} alone, equal updates', fewer, 1


def longer_rows(temperature):
    "Some of them again, in runs of several times the length"
    longer = dict(batch=1024, temperature=temperature, images=LONGER * IMAGES)
    for k in (1, 16, 64):
        way = f'plain in {k} parts' if k > 1 else 'exact'
        yield f'N 1024, tau {temperature}, {way}, longer', longer, k


def rows():
    "All rows, the most telling ones first"
    for n in BATCHES:
        yield from rows_of(n, .1)
    yield from rows_of(1024, .5)
    yield from longer_rows(.1)
    yield from rows_of(1024, .2)


def run_config(settings, seed, rate, train):
    per_epoch = len(train) // settings['batch']
    # so many passes that the images seen are as many as asked for, to within an epoch
    epochs = max(round(settings['images'] / (per_epoch * settings['batch'])), 1)
    return replace(SETTINGS, batch=settings['batch'], temperature=settings['temperature'],
                   epochs=epochs, warmup_epochs=epochs / 10, seed=seed, lr=rate)


def trained(settings, parts, seed, rate, train):
    "The model of a run, trained unless it is there, and its history"
    config = run_config(settings, seed, rate, train)
    # by its settings: rows may share a run
    folder = OUT / (f"batch-{config.batch}-tau-{config.temperature}-images-"
                    f"{settings['images']}-parts-{parts}-rate-{rate}-seed-{seed}")
    loss = None
    if parts > 1:
        loss = partial(parts_loss, parts=parts, temperature=config.temperature)
    if not (folder / 'head.safetensors').exists():
        pretrain(config, train, progress=False, folder=folder, resume=folder.exists(),
                 loss=loss)
    return load_model(folder), read_run(folder)[2]


def accuracies(model, train, test):
    train_h, test_h = embed(model.encoder, train), embed(model.encoder, test)
    return dict(knn=knn_accuracy(train_h, train.labels, test_h, test.labels),
                linear=linear_probe(train_h, train.labels, test_h, test.labels))


def row_figures(settings, parts, seed, rates, train, held_out, test):
    "The accuracy on held-out images of each rate, and on test images of the best"
    tried = {}
    for rate in rates:
        model, history = trained(settings, parts, seed, rate, train)
        tried[str(rate)] = accuracies(model, train, held_out) | dict(loss=history[-1]['loss'])
    best = max(rates, key=lambda rate: tried[str(rate)]['knn'])
    model, history = trained(settings, parts, seed, best, train)
    return dict(tried=tried, rate=best, updates=len(history),
                minutes=round(history[-1]['seconds'] / 60, 1), **settings, parts=parts,
                **accuracies(model, train, test))


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


def gradients(train, temperatures=(.1, .5), batch=1024, batches=9):
    "`agreement` before training, and after a run with exact gradients at N = 256"
    figures = {}
    for temperature in temperatures:
        settings = dict(batch=256, temperature=temperature, images=IMAGES)
        config = replace(run_config(settings | dict(batch=batch), 0, 2., train), epochs=5)
        training = prepare(config, train)
        trained_model, _ = trained(settings, 1, 0, 2., train)
        for when, model in (('untrained', training.model), ('trained', trained_model.train())):
            name = f'tau {temperature}, {when}'
            figures[name] = agreement(model, training, temperature, batches)
            print(name, figures[name], flush=True)
    return figures


# the command

def one_row(wanted, seed, train, held_out):
    "The figures of one row with any seed, at the rate found for it; nothing is written"
    found = {name: (settings, parts) for name, settings, parts in rows()}
    if wanted not in found:
        sys.exit(f'no row {wanted!r}; there are: ' + '; '.join(found))
    rate = read_results()[f'{wanted}, seed 0']['rate']
    settings, parts = found[wanted]
    return row_figures(settings, parts, seed, (rate,), train, held_out, sample('test'))


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
    if wanted == ['micro'] or 'micro-batches' not in read_results():
        keep('micro-batches', micro_batches(), time.perf_counter() - start)
    if wanted == ['micro']:
        return
    train, held_out = hold_out(sample('train'))
    if wanted == ['gradients']:
        keep('gradients', gradients(train), time.perf_counter() - start)
        return
    if wanted[:1] == ['row']:
        print(one_row(wanted[1], int(wanted[2]), train, held_out))
        return
    for seed in SEEDS:
        for name, settings, parts in rows():
            results = read_results()
            key = f'{name}, seed {seed}'
            if key not in results:
                start = time.perf_counter()
                rates = RATES if seed == 0 else (results[f'{name}, seed 0']['rate'],)
                figures = row_figures(settings, parts, seed, rates, train, held_out,
                                      sample('test'))
                keep(key, figures, time.perf_counter() - start)


if __name__ == '__main__':
    words = sys.argv[1:]
    if '--out' in words:
        i = words.index('--out')
        OUT = Path(words[i + 1])
        del words[i:i + 2]
    main(words)
