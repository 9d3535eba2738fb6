"""Faults done for real to short training runs: kills, signals, damaged checkpoints, full and
read-only disks, bad settings.

    python bench/faults.py           # in earnest, some ten minutes; writes faults.json
    python bench/faults.py --few     # a few of each, for the tests; writes nothing

A run survives if it can go on and ends with the weights, bit for bit, and the metrics of a run
that nobody disturbed. The runs are processes of their own on the CPU, with one thread, forked
from one that has done the imports. The exit status is 1 if anything did not survive.
"""
import argparse
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from dataclasses import fields, replace
from pathlib import Path

import torch
from hypothesis import given, settings, strategies as st
from tqdm import tqdm

from simclr_nb.checkpoints import read_checkpoint
from simclr_nb.core import describe_machine, write_json
from simclr_nb.data import sample
from simclr_nb.resnet import load_encoder
from simclr_nb.runs import TrainConfig, read_run
from simclr_nb.train import pretrain

HERE = Path(__file__).resolve().parent
VICTIM = TrainConfig(width=8, batch=64, epochs=10, warmup_epochs=1., size=16, device='cpu',
                     precision='float32', compile=False, checkpoint_minutes=0.) # 40 steps
CHANCE = random.Random(0)


# a run as a process

FORKED = multiprocessing.get_context('forkserver')
# what takes seconds to import; the optimiser needs the second
FORKED.set_forkserver_preload(['simclr_nb.train', 'torch._dynamo', 'hypothesis'])


def child(folder, config, resume, errors, largest_file):
    with open(errors, 'w') as file:
        os.dup2(file.fileno(), 2) # what it says on stderr
    if largest_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    torch.set_num_threads(1) # the sums of a product depend on how many threads share it
    tqdm.set_lock(threading.RLock()) # its own would outlive a kill -9 in the system
    pretrain(config, sample('train')[:256], folder=folder, resume=resume, progress=False)


def begin(folder, config=VICTIM, largest_file=None): # largest_file: bytes; None: no limit
    "The run in `folder` as a process, begun or resumed"
    resume = (folder / 'settings.json').exists()
    with tempfile.NamedTemporaryFile(delete=False) as errors:
        process = FORKED.Process(target=child,
                                 args=(folder, config, resume, errors.name, largest_file))
    process.errors = Path(errors.name)
    process.start()
    return process


def end_of(process):
    "Wait for the end of a run; what it said on stderr"
    process.join()
    said = process.errors.read_text()
    process.errors.unlink()
    return said


def kill(process):
    process.kill()
    process.join()
    process.errors.unlink()


def steps_done(folder):
    return len(read_run(folder)[2]) if folder.exists() else 0


def newest_step(folder): # steps done at the newest checkpoint
    checkpoints = sorted(folder.glob('checkpoint-*.pt'))
    return int(checkpoints[-1].stem.split('-')[1]) if checkpoints else 0


def times_begun(folder):
    return 1 + len(read_run(folder)[1].get('resumed', [])) if folder.exists() else 0


def wait_for_steps(process, folder, steps):
    "Wait until the run has so many steps, or has ended"
    while process.is_alive() and steps_done(folder) < steps:
        time.sleep(.001)


def result(folder): # weights, and metrics but for the seconds
    metrics = [{key: value for key, value in row.items() if key != 'seconds'}
               for row in read_run(folder)[2]]
    return load_encoder(folder / 'encoder').state_dict(), metrics


def same(folder, whole):
    "Whether two finished runs have the same weights, bit for bit, and metrics"
    weights, metrics = result(folder)
    true_weights, true_metrics = result(whole)
    if metrics != true_metrics or weights.keys() != true_weights.keys():
        return False
    return all(torch.equal(weights[name], true_weights[name]) for name in true_weights)


def complain(folder, reason):
    print(f'{folder} did not survive: {reason}', file=sys.stderr)


def finished(folder, whole, config=VICTIM):
    """Let a run go on to its end; whether it does no step again that a checkpoint holds, and
    ends as the undisturbed one"""
    done = newest_step(folder)
    before = read_run(folder)[2][:done] if folder.exists() else []
    process = begin(folder, config)
    error = end_of(process)
    ended_same = process.exitcode == 0 and same(folder, whole)
    # a step that was done again took other seconds
    ended_same = ended_same and read_run(folder)[2][:done] == before
    if not ended_same:
        reason = error or 'other weights or metrics'
        complain(folder, reason)
    return ended_same


# the faults: each is done n times in folder `work`, beside the undisturbed run `whole`

def kill_at_random(folder, config):
    """Kill a run at a random moment; its steps then, None if it had ended before, and whether
    there were the checkpoints that the settings ask for"""
    begun, done = times_begun(folder), steps_done(folder)
    process = begin(folder, config)
    if CHANCE.random() > .2:
        wait_for_steps(process, folder, CHANCE.randint(min(done, 39), 39))
        time.sleep(CHANCE.uniform(0, .02))
    else: # one in five while the run is opened, or soon after
        while process.is_alive() and times_begun(folder) == begun:
            time.sleep(.001)
        time.sleep(CHANCE.uniform(0, .3))
    kill(process)
    if process.exitcode != -signal.SIGKILL:
        return None, True
    steps, kept = steps_done(folder), newest_step(folder)
    each_step = config.checkpoint_minutes == 0
    if each_step and kept < steps - 1:
        complain(folder, f'killed after {steps} steps, its newest checkpoint has {kept}')
        return steps, False
    return steps, True


def kills(n, work, whole):
    """kill -9 at random moments, up to five times in one run; every other run writes a
    checkpoint only now and then"""
    survived, steps_when_killed, runs = 0, [], 0
    while len(steps_when_killed) < n:
        folder = work / f'killed-{runs}'
        config = replace(VICTIM, checkpoint_minutes=0. if runs % 2 else .002)
        kills_of_run, all_kept = 0, True
        while kills_of_run < min(5, n - len(steps_when_killed)):
            steps, kept = kill_at_random(folder, config)
            if steps is None: # no kill, and a new run
                break
            kills_of_run += 1
            all_kept &= kept
            steps_when_killed.append(steps)
        runs += 1
        # a resumed run that has ended leaves the same encoder
        survived += kills_of_run * (finished(folder, whole, config) and all_kept)
    return dict(done=n, survived=survived, runs=runs,
                of_40_steps_done_when_killed=steps_when_killed)


def signals(n, work, whole):
    """SIGINT and SIGTERM in turn, after a random number of steps: a message, a checkpoint,
    and the run can go on"""
    survived, done, runs = 0, 0, 0
    while done < n:
        folder, config = work / f'stopped-{runs}', replace(VICTIM, checkpoint_minutes=10.)
        runs += 1
        sent = (signal.SIGINT, signal.SIGTERM)[done % 2]
        process = begin(folder, config)
        wait_for_steps(process, folder, CHANCE.randint(1, 30))
        os.kill(process.pid, sent)
        error = end_of(process)
        if process.exitcode == 0: # it had ended before: no signal, and a new run
            continue
        done += 1
        told = f'stopped by {sent.name} after' in error and str(folder) in error
        if not told or len(list(folder.glob('checkpoint-*.pt'))) != 1:
            complain(folder, f'{sent.name} without its message or checkpoint: {error}')
            continue
        survived += finished(folder, whole, config)
    return dict(done=done, survived=survived, runs=runs)


def second_run(n, work, whole):
    """A second process on a folder in use is refused; after a kill -9 of the first the
    folder is free"""
    folder, refused = work / 'twice', 0
    process = begin(folder)
    wait_for_steps(process, folder, 1)
    os.kill(process.pid, signal.SIGSTOP) # the first one is there and holds the lock
    for _ in range(n):
        error = end_of(begin(folder))
        if f'folder {folder} is in use by another run' in error:
            refused += 1
        else:
            complain(folder, f'a second run was not refused: {error}')
    kill(process)
    return dict(done=n + 1, survived=refused + finished(folder, whole))


def is_refused(checkpoint):
    try:
        read_checkpoint(checkpoint)
    except ValueError:
        return True
    return False


def damage(n, work, whole):
    """Bits flipped and files cut at random places of real checkpoints: each must be
    detected, none loaded"""
    good = sorted(whole.glob('checkpoint-*.pt'))[-1].read_bytes()
    copy, detected = work / 'damaged.pt', 0
    for k in range(n):
        place = CHANCE.randrange(len(good))
        if k % 2:
            damaged = good[:place]
        else:
            flipped = good[place] ^ 1 << CHANCE.randrange(8)
            damaged = good[:place] + bytes([flipped]) + good[place + 1:]
        copy.write_bytes(damaged)
        detected += is_refused(copy)
    copy.write_bytes(good)
    read_checkpoint(copy)
    return dict(done=n, survived=detected)


def mount(folder, *options):
    "Whether a tmpfs could be mounted there: it needs the right to"
    command = ['mount', '-t', 'tmpfs', *options, 'none', str(folder)]
    return subprocess.run(command, capture_output=True).returncode == 0


def remount(folder, option):
    subprocess.run(['mount', '-o', f'remount,{option}', str(folder)], check=True)


def unmount(folder):
    subprocess.run(['umount', '-l', str(folder)], check=True)


def fill_disk(disk, whole, checkpoint_bytes):
    "Run on a disk without room for the next checkpoint: (it survived, the disk was mounted)"
    folder = disk / 'run'
    disk.mkdir()
    # two checkpoints are kept, so a third must fit beside them
    mounted = mount(disk, '-o', f'size={int(checkpoint_bytes * CHANCE.uniform(.5, 2.9))}')
    largest_file = None if mounted else checkpoint_bytes // 2 # there may be no right to mount
    try:
        process = begin(folder, largest_file=largest_file)
        error = end_of(process)
        told = process.exitcode == 1 and 'could not be written' in error
        if not told:
            complain(folder, f'exit status {process.exitcode} on a full disk: {error}')
        intact = all(read_checkpoint(path) for path in folder.glob('checkpoint-*.pt'))
        if mounted:
            remount(disk, f'size={100 * checkpoint_bytes}')
        return told and intact and finished(folder, whole), mounted
    finally:
        if mounted:
            unmount(disk)


def full_disk(n, work, whole):
    """No room for the next checkpoint, at a random size: a one-line reason, the checkpoints
    before intact, and the run goes on when there is room"""
    checkpoint_bytes = sorted(whole.glob('checkpoint-*.pt'))[-1].stat().st_size
    survived = 0
    for k in range(n):
        survives, mounted = fill_disk(work / f'disk-{k}', whole, checkpoint_bytes)
        survived += survives
    return dict(done=n, survived=survived, by='a small tmpfs' if mounted else 'RLIMIT_FSIZE')


def read_only(n, work, whole):
    """A folder that cannot be written: refused with its name, a finished run in it left as
    it is"""
    disk = work / 'read-only'
    run, new = disk / 'run', disk / 'new'
    disk.mkdir()
    mounted = mount(disk)
    message = 'Read-only file system' if mounted else 'Permission denied'
    try:
        shutil.copytree(whole, run)
        if mounted:
            remount(disk, 'ro')
        else: # no right to mount, so no right to write here either
            run.chmod(0o555)
            disk.chmod(0o555)
        told = 0
        for folder in (new, run):
            error = end_of(begin(folder))
            if message in error and str(folder) in error:
                told += 1
            else:
                complain(folder, f'its folder cannot be written, and it said: {error}')
        return dict(done=2, survived=told * same(run, whole),
                    by='a read-only tmpfs' if mounted else 'chmod')
    finally:
        if mounted:
            unmount(disk)
        else:
            disk.chmod(0o755)
            run.chmod(0o755)


# wrong settings: (field, what hypothesis makes up for it)

COUNTS = ('width groups group_channels head_hidden head_out head_layers size embed_size batch '
          'micro_batch epochs threads').split()
PROBABILITIES = 'flip jitter grey blur'.split()
NUMBERS = ('strength min_crop temperature lr warmup_epochs momentum weight_decay '
           'trust_coefficient checkpoint_minutes').split()
CHOICES = ('encoder norm stem lr_rule precision device weight_standardised zero_init head_norm '
           'channels_last compile reduction').split()
ANYTHING = st.one_of(st.text(max_size=5), st.lists(st.integers(), max_size=2),
                     st.just(float('nan')), st.just(float('inf')), st.booleans())
NO_COUNT = st.one_of(ANYTHING, st.integers(max_value=-1), st.floats(.1, .9))
NO_NUMBER = st.one_of(ANYTHING, st.floats(max_value=-1e-9), st.floats(1e10))
NO_CHOICE = st.one_of(st.text(max_size=5), st.integers(), st.none())
WRONG = [*((name, NO_COUNT) for name in (*COUNTS, 'seed')),
         *((name, st.integers(10**10)) for name in COUNTS), # any seed is right
         *((name, NO_NUMBER) for name in (*NUMBERS, *PROBABILITIES)),
         *((name, st.floats(1, exclude_min=True)) for name in PROBABILITIES),
         ('strength', st.floats(1.25, exclude_min=True)),
         ('min_crop', st.floats(1, exclude_min=True)),
         ('momentum', st.floats(1)),
         *((name, NO_CHOICE) for name in CHOICES),
         ('batch', st.integers(257, 10**6))] # more than there are images


def bad_settings(n, work, whole):
    """One wrong setting, made up by hypothesis for every field in turn: refused by name
    before any file is written"""
    unknown = {field.name for field in fields(TrainConfig)} ^ {name for name, _ in WRONG}
    if unknown:
        raise AssertionError(f'no wrong values for {unknown}')
    images, folder = sample('train')[:256], work / 'refused'
    counts = dict(done=0, survived=0)

    def check_field(name, values):
        @settings(max_examples=n, deadline=None, database=None, derandomize=True)
        @given(values)
        def check(value):
            counts['done'] += 1
            try:
                config = replace(VICTIM, **{name: value})
                pretrain(config, images, folder=folder, progress=False)
            except (ValueError, TypeError) as error:
                counts['survived'] += name in str(error) and not folder.exists()
        check()

    for name, values in WRONG:
        check_field(name, values)
    return counts


# the command

FAULTS = { # how often in earnest, and with --few
    kills: (50, 3), signals: (20, 2), second_run: (3, 1), damage: (200, 40), full_disk: (10, 1),
    read_only: (1, 1), bad_settings: (25, 3)}


def undisturbed(folder):
    process = begin(folder)
    error = end_of(process)
    if process.exitcode:
        raise RuntimeError(error)


def do_faults(wanted, few):
    "Whether all survived. Prints a line for each; unless `few`, writes faults.json"
    path, results, all_survived = HERE / 'faults.json', {}, True
    if path.exists() and not few:
        results = json.loads(path.read_text())
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        whole = work / 'whole'
        undisturbed(whole)
        for fault in wanted:
            name, what = fault.__name__, ' '.join(fault.__doc__.split())
            counts = fault(FAULTS[fault][few], work, whole)
            results[name] = dict(what=what, command=f'python bench/faults.py {name}',
                                 machine=describe_machine(torch.device('cpu'))) | counts
            done, survived = counts['done'], counts['survived']
            words = textwrap.wrap(what, 70)
            print(f'{name:<14}{survived:>5} of {done:<5} {words[0]}', flush=True)
            for line in words[1:]:
                print(' ' * 28 + line, flush=True)
            all_survived &= survived == done
            if not few:
                write_json(path, results)
    return all_survived


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [fault.__name__ for fault in FAULTS]
    parser.add_argument('faults', nargs='*', help=f'{", ".join(names)}; all if none is named')
    parser.add_argument('--few', action='store_true', help='a few of each; write nothing')
    args = parser.parse_args()
    unknown = set(args.faults) - set(names)
    if unknown:
        parser.error(f'no such fault: {", ".join(sorted(unknown))}')
    signal.signal(signal.SIGINT, signal.default_int_handler) # a shell may ignore it for us
    wanted = [fault for fault in FAULTS if not args.faults or fault.__name__ in args.faults]
    return 0 if do_faults(wanted, args.few) else 1


if __name__ == '__main__':
    sys.exit(main())
