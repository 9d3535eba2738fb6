"""SimCLR on all of CIFAR-10, on a CPU: one run of about an hour, three seeds of five epochs (13
minutes alone on a core), and what their features are worth beside raw pixels, random
initialisation and a supervised network of the same shape.

    OMP_NUM_THREADS=1 python bench/cifar.py    # some three hours on one core
                                               # needs CIFAR-10 (simclr_data)

Everything that is finished is kept, runs in runs/cifar (another folder: --out) and figures in
cifar.json, so a stopped script goes on where it was; pieces can be named (python bench/cifar.py
"pretrain ten-1" "features ten-1").
"""
import sys
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch

from long_runs import finished_run, keep_result, read_results, take_folder
from simclr_nb.augment import SimCLRAugment, Views
from simclr_nb.checkpoints import load_model
from simclr_nb.cifar import cifar10
from simclr_nb.core import describe_machine, generator, keep_freed_memory
from simclr_nb.evaluate import (accuracy, confusion_matrix, embed, knn_accuracy, label_subset,
                                linear_predict, linear_probe, view_measures)
from simclr_nb.finetune import fine_tune, linear_probe_sgd
from simclr_nb.runs import TrainConfig, build_model

HERE = Path(__file__).resolve().parent
OUT = Path('runs/cifar')
SETTINGS = TrainConfig(width=24, batch=256, temperature=.2, lr=2., warmup_epochs=1.,
                       compile=False)
RUNS = {'hour': replace(SETTINGS, epochs=30)}
RUNS |= {f'ten-{seed}': replace(SETTINGS, epochs=5, seed=seed) for seed in range(3)}
FRACTIONS = {'1%': .01, '10%': .1}
# the paper has 60 and 30 epochs (B.5); lr and batch are the defaults of fine_tune
TUNE = {'1%': dict(epochs=60), '10%': dict(epochs=20)}
SCRATCH = {'1%': dict(epochs=120), '10%': dict(epochs=40)} # longer: nothing is learnt yet


# what a piece of the work computes

def pretrained(name):
    machine, history = finished_run(RUNS[name], cifar10('train'), OUT / name,
                                    about=dict(data='cifar10'))
    last = history[-1]
    return dict(settings=asdict(RUNS[name]), machine=machine, steps=len(history),
                minutes=round(last['seconds'] / 60, 1), loss=last['loss'])


def knn_and_linear(train_features, test_features, train, test):
    "Accuracy of frozen features with all labels"
    data = train_features, train.labels, test_features, test.labels
    return dict(knn=knn_accuracy(*data), linear=linear_probe(*data))


def probes(train_features, test_features, train, test, seed):
    "Accuracy of frozen features: kNN and linear probe with all labels, linear probe with few"
    figures = knn_and_linear(train_features, test_features, train, test)
    for name, fraction in FRACTIONS.items():
        rows = label_subset(train.labels, fraction, seed)
        figures[f'linear {name}'] = linear_probe(train_features[rows], train.labels[rows],
                                                 test_features, test.labels)
    return figures


def model_figures(model, train, test, seed):
    "Accuracy of h and z, measures of both, and how the classes are mixed up"
    h_train, h_test = (embed(model.encoder, images) for images in (train, test))
    z_train, z_test = (embed(model, images) for images in (train, test))
    augment, images = SimCLRAugment(), test.images[:1000]
    draws = augment.draw(2 * len(images), generator(0, 'measures'))
    views = Views(images, draws, augment)
    predicted = linear_predict(h_train, train.labels, h_test)
    return dict(h=probes(h_train, h_test, train, test, seed),
                z=knn_and_linear(z_train, z_test, train, test),
                measures=dict(h=view_measures(embed(model.encoder, views)),
                              z=view_measures(embed(model, views))),
                confusion=confusion_matrix(predicted, test.labels, 10).tolist())


def tuned(encoder, train, test, seed, settings):
    "Accuracy of the whole network, fine-tuned with few labels"
    figures = {}
    for name, fraction in FRACTIONS.items():
        labelled = train[label_subset(train.labels, fraction, seed)]
        classifier = fine_tune(encoder, labelled, seed=seed, **settings[name])
        figures[name] = accuracy(embed(classifier, test).argmax(1), test.labels)
    return dict(figures=figures, settings=settings)


def supervised(seed, train, test, epochs=30, lr=.04, patience=5):
    """The same network trained with nine tenths of the labels until the rest no longer gains

    The last tenth is asked after every epoch; the weights of the best epoch are tested."""
    encoder = build_model(replace(SETTINGS, seed=seed)).encoder
    classifier = fine_tune(encoder, train, epochs=epochs, lr=lr, seed=seed, patience=patience)
    h_train, h_test = (embed(classifier[0], images) for images in (train, test))
    return dict(accuracy=accuracy(embed(classifier, test).argmax(1), test.labels),
                h=probes(h_train, h_test, train, test, seed), epochs=epochs, lr=lr,
                patience=patience, held_out=classifier.held_out_accuracies)


# the pieces; a model is loaded or made only when its piece is

def random_features(seed, train, test):
    return model_figures(build_model(replace(SETTINGS, seed=seed)).eval(), train, test, seed)


def run_features(name, train, test):
    return model_figures(load_model(OUT / name), train, test, RUNS[name].seed)


def tuned_run(name, train, test):
    return tuned(load_model(OUT / name).encoder, train, test, RUNS[name].seed, TUNE)


def tuned_from_scratch(seed, train, test):
    encoder = build_model(replace(SETTINGS, seed=seed)).encoder
    return tuned(encoder, train, test, seed, SCRATCH)


def pixel_features(train, test):
    train_pixels, test_pixels = (data.images.flatten(1) / 255 for data in (train, test))
    return dict(h=probes(train_pixels, test_pixels, train, test, 0))


def sgd_probe(train, test, epochs=10):
    encoder = load_model(OUT / 'hour').encoder
    return dict(accuracy=linear_probe_sgd(encoder, train, test, epochs=epochs), epochs=epochs)


def pieces(train, test):
    "Name -> function that makes the figures, in the order in which they are made"
    jobs = {f'pretrain {name}': partial(pretrained, name) for name in RUNS}
    for seed in range(3):
        jobs[f'features random-{seed}'] = partial(random_features, seed, train, test)
    for name in RUNS:
        jobs[f'features {name}'] = partial(run_features, name, train, test)
    for name in RUNS:
        jobs[f'tuned {name}'] = partial(tuned_run, name, train, test)
    for seed in range(3):
        jobs[f'scratch {seed}'] = partial(tuned_from_scratch, seed, train, test)
    for seed in range(3):
        jobs[f'supervised {seed}'] = partial(supervised, seed, train, test)
    jobs['features pixels'] = partial(pixel_features, train, test)
    jobs['sgd hour'] = partial(sgd_probe, train, test)
    return jobs


# the commands

def make_pieces(wanted):
    jobs = pieces(cifar10('train'), cifar10('test'))
    unknown = [name for name in wanted if name not in jobs]
    if unknown:
        sys.exit(f'no such piece: {", ".join(unknown)}; there are {", ".join(jobs)}')
    path = HERE / 'cifar.json'
    for name in wanted or jobs:
        if name in read_results(path):
            continue
        start = time.perf_counter()
        figures = jobs[name]()
        seconds = time.perf_counter() - start
        machine = describe_machine(torch.device('cpu'))
        keep_result(path, [name], figures | dict(took=round(seconds), on=machine))
        print(f'{name}: {seconds:.0f} s', flush=True)


def main(wanted):
    keep_freed_memory()
    make_pieces(wanted)


if __name__ == '__main__':
    words = sys.argv[1:]
    OUT = take_folder(words, OUT)
    main(words)
