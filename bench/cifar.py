"""SimCLR on all of CIFAR-10, on a CPU: one run of about an hour, three seeds of five epochs (13 minutes alone on a core),
and what their features are worth beside raw pixels, random initialisation and a supervised network of the same shape.

    OMP_NUM_THREADS=1 python bench/cifar.py    # some three hours on one core; needs CIFAR-10 (simclr_data)

Everything that is finished is kept, runs in runs/cifar (another folder: --out) and figures in cifar.json, so a stopped script goes on
where it was; pieces can be named (python bench/cifar.py "pretrain ten-1" "features ten-1"). `python bench/cifar.py store` copies
the hour's run, thinned, into nbs/stored/hour.
"""
import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors.torch import save

from simclr_nb.augment import SimCLRAugment, Views
from simclr_nb.checkpoints import load_model
from simclr_nb.cifar import cifar10
from simclr_nb.core import atomic_path, describe_machine, generator, keep_freed_memory
from simclr_nb.evaluate import (accuracy, confusion_matrix, embed, fine_tune, knn_accuracy, label_subset, linear_predict, linear_probe, linear_probe_sgd,
                                view_measures)
from simclr_nb.resnet import save_encoder
from simclr_nb.runs import TrainConfig, build_model, read_run
from simclr_nb.train import pretrain

HERE = Path(__file__).resolve().parent
OUT = Path('runs/cifar')
SETTINGS = TrainConfig(width=24, batch=256, temperature=.2, lr=2., warmup_epochs=1.)
RUNS = {'hour': replace(SETTINGS, epochs=30)} | {f'ten-{k}': replace(SETTINGS, epochs=5, seed=k) for k in range(3)}
FRACTIONS = {'1%': .01, '10%': .1}
TUNE = {'1%': dict(epochs=60), '10%': dict(epochs=20)} # the paper has 60 and 30 (B.5); lr and batch are the defaults of fine_tune
SCRATCH = {'1%': dict(epochs=120), '10%': dict(epochs=40)} # longer: nothing is learnt yet


def pretrained(name):
    folder = OUT / name
    if not (folder / 'head.safetensors').exists(): pretrain(RUNS[name], cifar10('train'), folder=folder, resume=folder.exists(), about=dict(data='cifar10'))
    _, machine, history = read_run(folder)
    return dict(settings=asdict(RUNS[name]), machine=machine, steps=len(history), minutes=round(history[-1]['seconds'] / 60, 1), loss=history[-1]['loss'])


def probes(a, b, train, test, seed):
    "Figures of frozen features: kNN and linear probe with all labels, linear probe with few"
    figures = dict(knn=knn_accuracy(a, train.labels, b, test.labels), linear=linear_probe(a, train.labels, b, test.labels))
    for name, fraction in FRACTIONS.items():
        rows = label_subset(train.labels, fraction, seed)
        figures[f'linear {name}'] = linear_probe(a[rows], train.labels[rows], b, test.labels)
    return figures


def model_figures(model, train, test, seed):
    h, z = ([embed(m, s) for s in (train, test)] for m in (model.encoder, model))
    augment, few = SimCLRAugment(), test.images[:1000]
    views = Views(few, augment.draw(2 * len(few), generator(0, 'measures')), augment)
    predicted = linear_predict(h[0], train.labels, h[1])
    return dict(h=probes(*h, train, test, seed), z=dict(knn=knn_accuracy(z[0], train.labels, z[1], test.labels), linear=linear_probe(z[0], train.labels, z[1], test.labels)),
                measures={part: view_measures(embed(m, views)) for part, m in (('h', model.encoder), ('z', model))}, confusion=confusion_matrix(predicted, test.labels, 10).tolist())


def tuned(encoder, train, test, seed, settings):
    figures = {}
    for name, fraction in FRACTIONS.items():
        classifier = fine_tune(encoder, train[label_subset(train.labels, fraction, seed)], seed=seed, **settings[name])
        figures[name] = accuracy(embed(classifier, test).argmax(1), test.labels)
    return dict(figures=figures, settings=settings)


def supervised(train, test, epochs=10, lr=.04): # more labels bear a higher rate
    classifier = fine_tune(build_model(SETTINGS).encoder, train, epochs=epochs, lr=lr)
    h = [embed(classifier[0], s) for s in (train, test)]
    return dict(accuracy=accuracy(embed(classifier, test).argmax(1), test.labels), h=probes(*h, train, test, 0), epochs=epochs, lr=lr)


def pieces(train, test):
    "Name -> function that makes the figures, in the order in which they are made"
    out = {f'pretrain {name}': lambda name=name: pretrained(name) for name in RUNS}
    pixels = lambda s: s.images.flatten(1) / 255
    for k in range(3): out[f'features random-{k}'] = lambda k=k: model_figures(build_model(replace(SETTINGS, seed=k)).eval(), train, test, k)
    for name, config in RUNS.items(): out[f'features {name}'] = lambda name=name, k=config.seed: model_figures(load_model(OUT / name), train, test, k)
    for name, config in RUNS.items(): out[f'tuned {name}'] = lambda name=name, k=config.seed: tuned(load_model(OUT / name).encoder, train, test, k, TUNE)
    for k in range(3): out[f'scratch {k}'] = lambda k=k: tuned(build_model(replace(SETTINGS, seed=k)).encoder, train, test, k, SCRATCH)
    out['supervised'] = lambda: supervised(train, test)
    out['features pixels'] = lambda: dict(h=probes(pixels(train), pixels(test), train, test, 0))
    out['sgd hour'] = lambda: dict(accuracy=linear_probe_sgd(load_model(OUT / 'hour').encoder, train, test, epochs=10), epochs=10)
    return out


def store(folder=HERE.parent / 'nbs/stored/hour', every=25):
    "What the notebooks need of the hour's run: settings, machine, every 25th step, encoder and head in half precision"
    folder.mkdir(parents=True, exist_ok=True)
    model = load_model(OUT / 'hour').half()
    save_encoder(model.encoder, folder / 'encoder', overwrite=True, size=RUNS['hour'].size)
    with atomic_path(folder / 'head.safetensors', overwrite=True) as p: p.write_bytes(save(model.head.state_dict()))
    for name in ('settings.json', 'machine.json'):
        with atomic_path(folder / name, overwrite=True) as p: p.write_bytes((OUT / 'hour' / name).read_bytes())
    history = read_run(OUT / 'hour')[2]
    rows = [r for r in history if r['step'] % every == 0 or r is history[-1]]
    with atomic_path(folder / 'metrics.jsonl', overwrite=True) as p: p.write_text(''.join(json.dumps(r) + '\n' for r in rows))


def main(wanted):
    if wanted == ['store']: return store()
    keep_freed_memory()
    jobs = pieces(cifar10('train'), cifar10('test'))
    unknown = [w for w in wanted if w not in jobs]
    if unknown: sys.exit(f'no such piece: {", ".join(unknown)}; there are {", ".join(jobs)}')
    path = HERE / 'cifar.json'
    for name in wanted or jobs:
        done = json.loads(path.read_text()) if path.exists() else {}
        if name in done: continue
        start = time.perf_counter()
        figures = jobs[name]()
        done = json.loads(path.read_text()) if path.exists() else {} # another process may have added a piece
        done[name] = figures | dict(took=round(time.perf_counter() - start), on=describe_machine(torch.device('cpu')))
        with atomic_path(path, overwrite=True) as p: p.write_text(json.dumps(done, indent=1) + '\n')
        print(f'{name}: {time.perf_counter() - start:.0f} s', flush=True)


if __name__ == '__main__':
    words = sys.argv[1:]
    if '--out' in words:
        i = words.index('--out')
        OUT = Path(words[i + 1])
        del words[i:i + 2]
    main(words)
