"""What the scripts with long runs have in common: their command line, and a run in a folder."""
import argparse
import sys
from pathlib import Path

from simclr_nb.runs import read_run
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


def finished_run(config, images, folder, **more): # more: for pretrain
    "What machine.json and the metrics of a run hold; it is trained, or resumed, if need be"
    if not (folder / 'head.safetensors').exists():
        pretrain(config, images, folder=folder, resume=folder.exists(), **more)
    made_with, machine, history = read_run(folder)
    if made_with != config:
        sys.exit(f'{folder} was made with other settings: move it away, or name another --out')
    return machine, history
