"""Faults done for real to short training runs: kills, signals, damaged checkpoints, full and read-only disks, bad settings.

    python bench/faults.py           # in earnest, some ten minutes; prints counts and writes faults.json
    python bench/faults.py --few     # a few of each, for the tests; writes nothing

A run survives if it can go on and ends with the weights, bit for bit, and the metrics of a run that nobody disturbed. The runs are processes
of their own on the CPU, with one thread. The exit status is 1 if anything did not survive.
"""
import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, fields, replace
from pathlib import Path

import torch
from hypothesis import given, settings, strategies as st

from simclr_nb.checkpoints import read_checkpoint
from simclr_nb.core import atomic_path, describe_machine
from simclr_nb.data import sample
from simclr_nb.resnet import load_encoder
from simclr_nb.runs import TrainConfig, read_run
from simclr_nb.train import pretrain

HERE = Path(__file__).resolve().parent
VICTIM = TrainConfig(width=8, batch=64, epochs=10, warmup_epochs=1., size=16, device='cpu', precision='float32', checkpoint_minutes=0.) # 40 steps
CHANCE = random.Random(0)


def child(folder, config, resume):
    torch.set_num_threads(1) # the sums of a product depend on how many threads share it
    print('ready', flush=True) # the imports are done
    pretrain(TrainConfig(**config), sample('train')[:256], folder=folder, resume=resume, progress=False)


def begin(folder, config=VICTIM, **kw):
    "The run in `folder` as a process, begun or resumed"
    what = json.dumps([str(folder), asdict(config), (folder / 'settings.json').exists()])
    p = subprocess.Popen([sys.executable, __file__, '--child', what], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kw)
    if p.stdout.readline() != 'ready\n': raise RuntimeError(p.stderr.read())
    return p


def result(folder): # weights, and metrics but for the seconds
    return load_encoder(folder / 'encoder').state_dict(), [{k: v for k, v in row.items() if k != 'seconds'} for row in read_run(folder)[2]]


def same(folder, whole):
    (w, metrics), (true, true_metrics) = result(folder), result(whole)
    return metrics == true_metrics and w.keys() == true.keys() and all(torch.equal(w[k], true[k]) for k in true)


def finished(folder, whole, config=VICTIM):
    p = begin(folder, config)
    _, error = p.communicate()
    ended_same = p.returncode == 0 and same(folder, whole)
    if not ended_same: print(f'{folder} did not survive: {error or "other weights or metrics"}', file=sys.stderr)
    return ended_same


def until(p, folder, steps):
    "Wait until the run has so many steps, or has ended"
    while p.poll() is None and (not folder.exists() or len(read_run(folder)[2]) < steps): time.sleep(.001)


def kills(n, work, whole, seconds):
    "kill -9 at random moments, up to five times in one run; every other run writes a checkpoint only now and then"
    survived, at, runs = 0, [], 0
    while len(at) < n:
        folder, config, here = work / f'killed-{runs}', replace(VICTIM, checkpoint_minutes=0. if runs % 2 else .002), 0
        while here < min(5, n - len(at)):
            p, done = begin(folder, config), len(read_run(folder)[2]) if folder.exists() else 0
            if CHANCE.random() > .2: until(p, folder, CHANCE.randint(min(done, 39), 39)) # one in five before the first step
            time.sleep(CHANCE.uniform(0, .02))
            p.kill(); p.wait()
            if p.returncode != -signal.SIGKILL: break # it had ended: no kill, and a new run
            here += 1
            at.append(len(read_run(folder)[2]) if folder.exists() else 0)
        runs += 1
        survived += here * finished(folder, whole, config) # a resumed run that has ended leaves the same encoder
    return dict(done=n, survived=survived, runs=runs, of_40_steps_done_when_killed=at)


def signals(n, work, whole, seconds):
    "SIGINT and SIGTERM in turn, after a random number of steps: a message, a checkpoint, and the run can go on"
    survived = 0
    for k in range(n):
        folder, sent, config = work / f'stopped-{k}', (signal.SIGINT, signal.SIGTERM)[k % 2], replace(VICTIM, checkpoint_minutes=10.)
        p = begin(folder, config)
        until(p, folder, CHANCE.randint(1, 30))
        p.send_signal(sent)
        _, error = p.communicate()
        told = f'stopped by {sent.name} after' in error and str(folder) in error and len(list(folder.glob('checkpoint-*.pt'))) == 1
        survived += told and finished(folder, whole, config)
    return dict(done=n, survived=survived)


def second_run(n, work, whole, seconds):
    "A second process on a folder in use is refused; after a kill -9 of the first the folder is free"
    folder, refused = work / 'twice', 0
    p = begin(folder)
    until(p, folder, 1)
    p.send_signal(signal.SIGSTOP) # the first one is there and holds the lock
    for _ in range(n):
        _, error = begin(folder).communicate()
        refused += f'folder {folder} is in use by another run' in error
    p.kill(); p.wait()
    return dict(done=n + 1, survived=refused + finished(folder, whole))


def damage(n, work, whole, seconds):
    "Bits flipped and files cut at random places of real checkpoints: each must be detected, none loaded"
    path = sorted(whole.glob('checkpoint-*.pt'))[-1]
    good, copy, detected = path.read_bytes(), work / 'damaged.pt', 0
    for k in range(n):
        at = CHANCE.randrange(len(good))
        copy.write_bytes(good[:at] if k % 2 else good[:at] + bytes([good[at] ^ 1 << CHANCE.randrange(8)]) + good[at + 1:])
        try: read_checkpoint(copy)
        except ValueError: detected += True
    copy.write_bytes(good)
    read_checkpoint(copy)
    return dict(done=n, survived=detected)


def full_disk(n, work, whole, seconds):
    "No room for the next checkpoint, at a random size: a one-line reason, the checkpoints before intact, and the run goes on when there is room"
    survived, one = 0, sorted(whole.glob('checkpoint-*.pt'))[-1].stat().st_size
    for k in range(n):
        disk, folder = work / f'disk-{k}', work / f'disk-{k}' / 'run'
        disk.mkdir()
        room = int(one * CHANCE.uniform(.5, 2.9)) # two checkpoints are kept, so a third must fit beside them
        mounted = subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={room}', 'none', str(disk)], capture_output=True).returncode == 0
        limit = {} if mounted else dict(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (one // 2, one // 2))) # no right to mount
        try:
            p = begin(folder, **limit)
            _, error = p.communicate()
            told = p.returncode == 1 and 'could not be written' in error
            intact = all(read_checkpoint(c) for c in folder.glob('checkpoint-*.pt'))
            if mounted: subprocess.run(['mount', '-o', f'remount,size={100 * one}', str(disk)], check=True)
            survived += told and intact and finished(folder, whole)
        finally:
            if mounted: subprocess.run(['umount', '-l', str(disk)], check=True)
    return dict(done=n, survived=survived, by='a small tmpfs' if mounted else 'RLIMIT_FSIZE')


def read_only(n, work, whole, seconds):
    "A folder that cannot be written: refused with its name, a finished run in it left as it is"
    disk = work / 'read-only'
    disk.mkdir()
    mounted = subprocess.run(['mount', '-t', 'tmpfs', 'none', str(disk)], capture_output=True).returncode == 0
    try:
        shutil.copytree(whole, disk / 'run')
        if mounted: subprocess.run(['mount', '-o', 'remount,ro', str(disk)], check=True)
        else: # no right to mount, so no right to write here either
            for folder in (disk / 'run', disk): folder.chmod(0o555)
        told = 0
        for folder in (disk / 'new', disk / 'run'):
            _, error = begin(folder).communicate()
            told += ('Read-only file system' if mounted else 'Permission denied') in error and str(folder) in error
        return dict(done=2, survived=told * same(disk / 'run', whole), by='a read-only tmpfs' if mounted else 'chmod')
    finally:
        if mounted: subprocess.run(['umount', '-l', str(disk)], check=True)
        else:
            for folder in (disk, disk / 'run'): folder.chmod(0o755)


anything = st.one_of(st.text(max_size=5), st.lists(st.integers(), max_size=2), st.just(float('nan')), st.just(float('inf')), st.booleans())
WRONG = [(name, st.one_of(anything, st.integers(max_value=-1), st.floats(.1, .9))) for name in 'width groups head_hidden head_out head_layers size batch micro_batch epochs seed'.split()]
WRONG += [(name, st.integers(10**10)) for name in 'width groups head_hidden head_out head_layers size batch micro_batch epochs'.split()] # any seed is right
WRONG += [(name, st.one_of(anything, st.floats(max_value=-1e-9), st.floats(1e10))) for name in 'strength min_crop temperature lr warmup_epochs momentum weight_decay trust_coefficient checkpoint_minutes'.split()]
WRONG += [(name, st.floats(above, exclude_min=name != 'momentum')) for name, above in (('strength', 1.25), ('min_crop', 1), ('momentum', 1))]
WRONG += [(name, st.one_of(st.text(max_size=5), st.integers(), st.none())) for name in 'encoder norm stem lr_rule precision device zero_init head_norm blur channels_last compile'.split()]
WRONG += [('batch', st.integers(257, 10**6))] # more than there are images


def bad_settings(n, work, whole, seconds):
    "One wrong setting, made up by hypothesis for every field in turn: refused by name before any file is written"
    unknown = {f.name for f in fields(TrainConfig)} ^ {name for name, _ in WRONG}
    if unknown: raise AssertionError(f'no wrong values for {unknown}')
    images, counts, out = sample('train')[:256], dict(done=0, survived=0), work / 'refused'

    for name, values in WRONG:
        @settings(max_examples=n, deadline=None, database=None, derandomize=True)
        @given(values)
        def check(value):
            counts['done'] += 1
            try: pretrain(replace(VICTIM, **{name: value}), images, folder=out, progress=False)
            except (ValueError, TypeError) as e: counts['survived'] += name in str(e) and not out.exists()
        check()
    return counts


FAULTS = {kills: (50, 3), signals: (20, 2), second_run: (3, 1), damage: (200, 40), full_disk: (10, 1), read_only: (1, 1), bad_settings: (25, 3)} # how often, and with --few


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('faults', nargs='*', help=f'{", ".join(f.__name__ for f in FAULTS)}; all if none is named')
    parser.add_argument('--few', action='store_true', help='a few of each; write nothing')
    parser.add_argument('--child', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child: return child(*json.loads(args.child))
    unknown = set(args.faults) - {f.__name__ for f in FAULTS}
    if unknown: parser.error(f'no such fault: {", ".join(sorted(unknown))}')
    path = HERE / 'faults.json'
    results = json.loads(path.read_text()) if path.exists() and not args.few else {}
    wanted = [f for f in FAULTS if not args.faults or f.__name__ in args.faults]
    with tempfile.TemporaryDirectory() as d:
        work, whole = Path(d), Path(d) / 'whole'
        p = begin(whole)
        start = time.perf_counter()
        if p.wait(): raise RuntimeError(p.stderr.read())
        seconds = time.perf_counter() - start
        for f in wanted:
            results[f.__name__] = dict(what=f.__doc__, command=f'python bench/faults.py {f.__name__}', machine=describe_machine(torch.device('cpu'))) | f(FAULTS[f][args.few], work, whole, seconds)
            print(f"{f.__name__:<14}{results[f.__name__]['survived']:>5} of {results[f.__name__]['done']:<5} {f.__doc__}", flush=True)
            if not args.few:
                with atomic_path(path, overwrite=True) as p: p.write_text(json.dumps(results, indent=1) + '\n')
    return int(any(results[f.__name__]['survived'] != results[f.__name__]['done'] for f in wanted))


if __name__ == '__main__': sys.exit(main())
