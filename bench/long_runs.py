"""What the scripts with long runs have in common: their command line, the figures they keep,
what features are worth, and a run in a folder."""
import argparse
import json
import sys
from pathlib import Path

from filelock import FileLock

from simclr_nb.core import write_json
from simclr_nb.evaluate import embed, knn_accuracy, linear_probe
from simclr_nb.runs import TrainConfig, read_run
from simclr_nb.train import pretrain


def take_folder(words, default): # words: of the command line; --out FOLDER is taken out of them
    "The folder for runs that --out names, else the default; no other option is allowed"
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument('--out', type=Path, default=default)
    known, words[:] = parser.parse_known_args(words)
    unknown = [word for word in words if word.startswith('-')]
    if unknown:
        sys.exit(f'unknown option {unknown[0]}; there is --out FOLDER')
    return known.out


def need(name, known, what): # what: in words, such as entry
    "The value of a name, or an exit that lists the known ones"
    if name not in known:
        sys.exit(f'no {what} {name!r}; there are: ' + '; '.join(known))
    return known[name]


def need_beginning(beginning, names):
    "An exit that lists the names if none of them begins so"
    if not any(name.startswith(beginning) for name in names):
        sys.exit(f'nothing begins with {beginning!r}; there are: ' + '; '.join(names))


def accuracies(encoder, bank, images, size=None): # size: of whole images, None: as they are
    "Of kNN and of a linear probe, 0..1, that learn from the bank and predict the images"
    bank_h, images_h = (embed(encoder, part, size=size) for part in (bank, images))
    return dict(knn=knn_accuracy(bank_h, bank.labels, images_h, images.labels),
                linear=linear_probe(bank_h, bank.labels, images_h, images.labels))


def read_results(path): # a JSON file of this folder
    "The figures in it: a dict, empty before the first one"
    return json.loads(path.read_text()) if path.exists() else {}


def keep_result(path, keys, figures): # keys: where they stand, such as ('tried', 'width 32')
    "Add figures to a JSON file, to which another process may be adding others"
    with FileLock(f'{path}.lock'):
        results = read_results(path)
        place = results
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        place[keys[-1]] = figures
        write_json(path, results)


def is_stored(key, results, config): # config: of the run that is wanted
    "Whether figures of this name are there; an exit if other settings have made them"
    if key not in results:
        return False
    if TrainConfig(**results[key]['settings']) != config:
        sys.exit(f'{key!r} is stored already, with other settings: take it out of the JSON '
                 'file, or give yours another name')
    print(f'{key!r} is stored already')
    return True


def finished_run(config, images, folder, **more): # more: for pretrain
    "What machine.json and the metrics of a run hold; it is trained, or resumed, if need be"
    if not (folder / 'head.safetensors').exists():
        pretrain(config, images, folder=folder, resume=folder.exists(), **more)
    made_with, machine, history = read_run(folder)
    if made_with != config or machine['images_sha256'] != images.sha256():
        sys.exit(f'{folder} was made with other settings or images: move it away, or name '
                 'another --out')
    return machine, history
