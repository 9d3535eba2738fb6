"""From a folder of pictures to a map: every command as a new user would type it, with its time.

    pip install scikit-image scikit-learn    # for the pictures that these packages ship
    python bench/pictures.py                 # fifteen minutes of two cores
    python bench/pictures.py --few           # a minute, nothing is kept

The folder holds 2,000 tiles of 96 to 180 pixels, cut at random from eighteen pictures, as JPEG
files, among them a copy, a broken file and one of 16 bits. Nothing tells which picture a tile
is from but its name, which no command looks at. The result, what the commands print and how
long they take, is pictures.json. The map is kept in a folder that --out names.
"""
import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from detail import pictures
from simclr_nb.core import describe_machine, generator, write_json
from simclr_nb.evaluate import embed, load_embeddings
from simclr_nb.runs import build_model, read_run
from simclr_nb.search import nearest
from simclr_nb.store import open_store

RESULTS = Path(__file__).resolve().parent / 'pictures.json'


def make_folder(folder, count):
    "JPEG files named by picture and number, as many of each picture"
    folder.mkdir(parents=True)
    sources = list(pictures())
    for k in range(count):
        name, pixels = sources[k % len(sources)]
        rng = generator(k, 'tile')
        side = int(torch.randint(96, 181, (), generator=rng))
        top, left = (int(torch.randint(length - side + 1, (), generator=rng))
                     for length in pixels.shape[1:])
        tile = pixels[:, top:top + side, left:left + side].permute(1, 2, 0).contiguous()
        Image.fromarray(tile.numpy()).save(folder / f'{Path(name).stem}-{k:04}.jpg', quality=92)
    first = sorted(folder.iterdir())[0]
    shutil.copy(first, folder / 'zz-copy.jpg')
    (folder / 'zz-broken.jpg').write_bytes(first.read_bytes()[:300])
    levels = np.linspace(900, 2500, 128).astype(np.uint16)
    Image.fromarray(np.tile(levels, (128, 1))).save(folder / 'zz-16-bits.png')


def same_picture(h, names):
    "The part of the five nearest that are of the same picture, over all tiles"
    kinds = [name.split('-')[0] for name in names]
    rows = torch.arange(len(names))
    _, found = nearest(h, h, 5, own=rows)
    right = [[kinds[row] == kinds[k] for row in line] for k, line in enumerate(found.tolist())]
    return torch.tensor(right).double().mean().item()


def run(words, place, kept):
    "The command in a shell, its time and what it prints, into `kept`"
    start = time.perf_counter()
    done = subprocess.run([sys.executable, '-m', 'simclr_nb', *words], cwd=place, text=True,
                          capture_output=True)
    if done.returncode:
        sys.exit(done.stderr)
    kept.append(dict(command='simclr_' + shlex.join(words), said=done.stdout.splitlines(),
                     seconds=time.perf_counter() - start))
    print(f"{kept[-1]['seconds']:.0f} s: {kept[-1]['command']}", flush=True)


def commands(minutes, query):
    pretrain = ['pretrain', 'mine.simclr', '--name', 'mine', '--minutes', str(minutes)]
    return [['data', 'folder', 'photos', '--store', 'mine.simclr'],
            [*pretrain, '--plan'], pretrain,
            ['embed', 'mine.simclr', '--run', 'runs/mine', '--embeddings', 'mine.safetensors'],
            ['search', f'photos/{query}', '--embeddings', 'mine.safetensors', '--k', '5',
             '--page', 'nearest.html'],
            ['map', 'mine.safetensors', '--method', 'tsne'],
            ['cluster', 'mine.safetensors', '--k', '18'],
            ['export', 'runs/mine', '--file', 'mine.pt2']]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--few', action='store_true', help='200 tiles and a few steps')
    parser.add_argument('--out', type=Path, help='a new folder that is kept')
    options = parser.parse_args()
    count, minutes = (200, .2) if options.few else (2000, 6)
    with tempfile.TemporaryDirectory() as temporary:
        place = options.out or Path(temporary) / 'work'
        make_folder(place / 'photos', count)
        kept = []
        for words in commands(minutes, sorted(os.listdir(place / 'photos'))[30]):
            run(words, place, kept)
        known = load_embeddings(place / 'mine.safetensors')
        config, _, history = read_run(place / 'runs' / 'mine')
        stored = open_store(place / 'mine.simclr')
        before = embed(build_model(config).encoder, stored)
        found = dict(machine=describe_machine(torch.device('cpu')), files=count + 3,
                     report=(place / 'mine.simclr.csv').read_text().splitlines(),
                     commands=kept, steps=len(history),
                     training_seconds=history[-1]['seconds'],
                     same_picture=same_picture(known['h'], known['names']),
                     same_picture_before=same_picture(before, known['names']),
                     minutes=sum(row['seconds'] for row in kept) / 60)
    print(json.dumps(found, indent=1))
    if not options.few:
        write_json(RESULTS, found)


if __name__ == '__main__':
    main()
