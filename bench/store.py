"""200,000 pictures under a limit of 1 GB: a store is made, killed on the way, and trained from.

    sudo mkdir /sys/fs/cgroup/memory/small      # or, with cgroup 2: /sys/fs/cgroup/small
    echo 1073741824 | sudo tee /sys/fs/cgroup/memory/small/memory.limit_in_bytes   # memory.max
    OMP_NUM_THREADS=1 sudo -E python bench/store.py --group /sys/fs/cgroup/memory/small
    python bench/store.py --few    # in a minute, without a limit

The limit holds for all that a process and its workers take, the system's cache of the files
they read among it, so a store of 2.5 GB cannot stay in memory. The pictures are crops of
CIFAR-10's images (simclr_data), enlarged to 96 pixels and saved as JPEG files, 200,000 in all.
How fast is training from the store, beside the same pictures in memory without a limit? The
two take turns, each a process of its own, and the ratio of a round counts. The result is
store.json.
"""
import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

from simclr_nb.cifar import cifar10
from simclr_nb.core import describe_machine, generator, keep_freed_memory, write_json
from simclr_nb.data import ImageSet, sample
from simclr_nb.runs import PRESETS
from simclr_nb.store import PictureFolder, open_store, write_store
from simclr_nb.train import prepare, step_views, update

RESULTS = Path(__file__).resolve().parent / 'store.json'


def make_pictures(folder, images, count):
    "Random crops of images as JPEG files, a thousand in each subfolder"
    rng = generator(0, 'crops')
    for k in range(count):
        path = folder / f'{k // 1000:03}' / f'{k:06}.jpg'
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        row, down, right, flip = torch.randint(2**31, (4,), generator=rng).tolist()
        crop = images[row % len(images), :, down % 9:, right % 9:][:, :24, :24]
        crop = crop.flip(2) if flip % 2 else crop
        picture = Image.fromarray(crop.permute(1, 2, 0).contiguous().numpy())
        picture.resize((96, 96), Image.Resampling.BICUBIC).save(path, quality=90)


def anonymous_memory(pid): # in bytes, of a process; 0 if it has gone
    try:
        status = Path(f'/proc/{pid}/status').read_text()
    except OSError:
        return 0
    found = re.search(r'RssAnon:\s+(\d+)', status)
    return 1024 * int(found.group(1)) if found else 0


def family(pid): # a process and those below it
    found = [pid]
    try:
        for task in Path(f'/proc/{pid}/task').iterdir():
            for child in (task / 'children').read_text().split():
                found += family(int(child))
    except OSError:
        pass
    return found


def run_child(words, group=None, kill_when=None):
    "What a child prints as JSON, its seconds, and the most memory that one of its family took"
    def enter(): # the group whose memory is limited
        if group:
            (Path(group) / 'cgroup.procs').write_text(str(os.getpid()))
    start, peak, whole = time.perf_counter(), 0, 0
    child = subprocess.Popen([sys.executable, __file__, *map(str, words)], text=True,
                             stdout=subprocess.PIPE, preexec_fn=enter)
    while child.poll() is None:
        sizes = [anonymous_memory(pid) for pid in family(child.pid)]
        peak, whole = max(peak, *sizes), max(whole, sum(sizes))
        if kill_when and kill_when():
            child.send_signal(signal.SIGKILL)
        time.sleep(.1)
    said = child.communicate()[0].strip().splitlines()
    if kill_when is None and child.returncode:
        sys.exit(f'{words} ended with {child.returncode}')
    figures = dict(seconds=time.perf_counter() - start, rss_anon=peak, rss_anon_of_all=whole)
    return figures | (json.loads(said[-1]) if said and child.returncode == 0 else {})


def train(path, steps, in_memory):
    "The child that trains: seconds of each step after ten, and a sum of the weights"
    keep_freed_memory() # as the commands do
    images = open_store(path)
    if in_memory:
        images = ImageSet(torch.cat([images.images[k:k + 1000]
                                     for k in range(0, len(images), 1000)]))
    config = PRESETS['quick']
    training = prepare(config.__class__(**vars(config) | dict(compile=False, device='cpu')),
                       images)
    taken = []
    for step in range(steps):
        start = time.perf_counter()
        update(training, step_views(training, step), step)
        taken.append(time.perf_counter() - start)
    weights = sum(p.double().abs().sum().item() for p in training.model.parameters())
    print(json.dumps(dict(step_seconds=sorted(taken[10:])[len(taken[10:]) // 2],
                          weights=weights)))


def forget(path):
    "Let the system's cache drop a file, so that it has to be read from the disk"
    with open(path, 'rb') as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def limit_of(group): # in bytes
    names = ('memory.limit_in_bytes', 'memory.max')
    found = [Path(group) / name for name in names if (Path(group) / name).exists()]
    return int(found[0].read_text())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--group', help='folder of a memory cgroup with a limit')
    parser.add_argument('--out', type=Path, help='folder for pictures and store, to be kept')
    parser.add_argument('--few', action='store_true', help='2,000 pictures, nothing is kept')
    parser.add_argument('child', nargs='*', help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child[:1] == ['write']:
        source = PictureFolder(options.child[1])
        print(json.dumps(dict(said=write_store(options.child[2], source, workers=2))))
        return
    if options.child[:1] == ['train']:
        train(options.child[1], int(options.child[2]), options.child[3] == 'memory')
        return
    count, steps, rounds = (2000, 20, 1) if options.few else (200_000, 120, 5)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.out or Path(temporary)
        images = (sample('test') if options.few else cifar10('train')).images
        make_pictures(folder / 'pictures', images, count)
        found = measure(folder, count, steps, rounds, options)
    print(json.dumps(found, indent=1))
    if not options.few:
        write_json(RESULTS, found)


def measure(folder, count, steps, rounds, options):
    "Store made, killed and resumed; then training from it and from memory by turns"
    path = folder / 'pictures.simclr'
    for old in (path, path.with_name(f'{path.name}.csv')):
        old.unlink(missing_ok=True)
    words = ['write', folder / 'pictures', path]
    journal = path.with_name(f'.{path.name}.part') / 'journal.jsonl'
    def done(): # pictures that the journal knows of
        return 64 * (len(journal.read_bytes().splitlines()) - 1) if journal.exists() else 0
    killed = run_child(words, options.group, kill_when=lambda: done() > count / 3)
    killed['pictures_done'] = done()
    written = run_child(words, options.group)
    written['said'] = written['said'].replace(f'{folder}/', '')
    turns = []
    for number in range(rounds):
        turn = {}
        for kind, group in (('store', options.group), ('memory', None)):
            forget(path)
            turn[kind] = run_child(['train', path, steps, kind], group)
        turns.append(turn)
        print(f'round {number}: {turn}', file=sys.stderr, flush=True)
    ratios = sorted(turn['store']['step_seconds'] / turn['memory']['step_seconds']
                    for turn in turns)
    return dict(machine=describe_machine(torch.device('cpu')), pictures=count,
                bytes=path.stat().st_size,
                limit=limit_of(options.group) if options.group else None,
                killed=killed, written=written, turns=turns,
                same_weights=len({turn[kind]['weights'] for turn in turns
                                  for kind in turn}) == 1,
                ratio=ratios[len(ratios) // 2], ratios=ratios,
                picture_files=sum(1 for _ in (folder / 'pictures').rglob('*.jpg')))


if __name__ == '__main__':
    main()
