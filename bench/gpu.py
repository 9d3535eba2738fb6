"""One sitting at a GPU: tests, parts, steps and one long run, within a number of minutes.

    python bench/gpu.py                      # 25 minutes; writes gpu.json as it goes
    python bench/gpu.py --only steps         # some of: tests, parts, steps, run
    python bench/gpu.py --device cpu --small # all of it in small, to see that it works

What gpu.json holds already for this card is not measured again. The run needs CIFAR-10
(`simclr_data`), which must be fetched before.
"""
import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from long_runs import accuracies
from simclr_nb.cifar import cifar10
from simclr_nb.core import describe_machine, generator, log_line, pick_device, write_json
from simclr_nb.data import ImageSet, sample
from simclr_nb.runs import TrainConfig, build_model
from simclr_nb.train import prepare, pretrain, step_views, update

HERE = Path(__file__).resolve().parent
SECTIONS = ('tests', 'parts', 'steps', 'run')
PEAKS = {'H100': 989e12, 'H200': 989e12, 'A100': 312e12} # dense bf16 operations a second
ENCODERS, BATCHES = ('resnet18', 'resnet50'), (512, 2048, 8192)
MICRO_BATCHES = dict(resnet18=4096, resnet50=1024) # views; all at once where it fits
FINAL = TrainConfig(encoder='resnet18', weight_standardised=True, batch=1024, lr=1.,
                    temperature=.2, weight_decay=1e-4, warmup_epochs=5., compile=True,
                    channels_last=True)
FOR_THE_RUN = 11 # minutes that steps leave to it
EVALUATION = 90 # seconds that are kept for measuring the run at its end


def small(config):
    return replace(config, width=8, batch=min(config.batch, 64), size=16, compile=False,
                   micro_batch=config.micro_batch and 32)


# tests and parts are programs of their own

def done(command, seconds):
    "Exit status and last lines of a command that is given so many seconds"
    try:
        run = subprocess.run([sys.executable, *command], cwd=HERE.parent, timeout=seconds,
                             capture_output=True, text=True)
    except subprocess.TimeoutExpired:
        return dict(status=None, said=f'not done after {seconds:.0f} s')
    lines = (run.stdout + run.stderr).strip().splitlines()
    return dict(status=run.returncode, said=lines[-40:])


def tests(sitting):
    "The notebooks, which use the device of the machine where they do not need the CPU"
    command = ['tools/check.py', 'notebooks=04_ntxent.ipynb' if sitting.small else 'notebooks']
    sitting.keep('tests', done(command, sitting.seconds(480)))


def parts(sitting):
    "The parts beside other libraries; parts.py writes a file of its own"
    names = ['lars'] if sitting.small else ['augment', 'resnet', 'ntxent', 'lars']
    for name in names:
        if not sitting.has('parts', name):
            command = ['bench/parts.py', '--device', sitting.device.type, name]
            sitting.keep('parts', done(command, sitting.seconds(150)), name)


# steps

def noise(count):
    pixels = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8,
                           generator=generator(0, 'noise'))
    return ImageSet(pixels)


def flops_of_view(config):
    "Operations of one view forward and back: three times those forward"
    model = build_model(config).to('meta')
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, config.size, config.size, device='meta'))
    return 3 * counter.get_total_flops()


def time_step(config, images, device, rounds):
    "Seconds of a step (median), the most memory of one, bytes, and what fitted"
    training = prepare(config, images)
    rows, seconds = [], []
    for step in range(3 + rounds): # three to warm up
        if device.type == 'cuda':
            torch.cuda.synchronize()
        start = time.perf_counter()
        rows.append(update(training, step_views(training, step), step)) # waits for its numbers
        seconds.append(time.perf_counter() - start)
    return dict(seconds=statistics.median(seconds[3:]), first=seconds[0],
                peak_memory=rows[-1].get('peak_memory'), micro_batch=rows[-1]['micro_batch'])


def step_settings(encoder, batch):
    whole = 2 * batch <= MICRO_BATCHES[encoder]
    config = TrainConfig(encoder=encoder, weight_standardised=True, batch=batch, epochs=100,
                         micro_batch=None if whole else MICRO_BATCHES[encoder])
    for compiled, channels_last, bf16 in itertools.product((True, False), repeat=3):
        ways = dict(compile=compiled, channels_last=channels_last,
                    precision='bf16' if bf16 else 'float32')
        name = ', '.join([f'{encoder}, batch {batch}', ways['precision'],
                          *(way for way in ('compile', 'channels_last') if ways[way])])
        yield name, replace(config, **ways)


def steps(sitting):
    "Images a second and memory, compiled or not, channels last or not, bf16 or float32"
    batches, rounds = ((64,), 2) if sitting.small else (BATCHES, 5)
    images = noise(2 * max(batches))
    peak = next((speed for name, speed in PEAKS.items()
                 if name in (sitting.machine['gpu'] or '')), None)
    for batch, encoder in itertools.product(batches, ENCODERS):
        for name, config in step_settings(encoder, batch):
            if sitting.has('steps', name) or sitting.left() < 60 * FOR_THE_RUN:
                continue
            config = small(config) if sitting.small else config
            try:
                found = time_step(replace(config, device=str(sitting.device)), images,
                                  sitting.device, rounds)
            except Exception as error: # one way that fails must not cost the others
                text = f'{type(error).__name__}: {error}'[:300]
                sitting.keep('steps', dict(error=text), name)
                continue
            found['images_a_second'] = config.batch / found['seconds']
            operations = 2 * config.batch * flops_of_view(config)
            if peak:
                found['share_of_bf16_peak'] = operations / found['seconds'] / peak
            sitting.keep('steps', found, name)


# the run

def run(sitting):
    "A run of as many epochs as there is time for, and what its features are worth"
    if sitting.small:
        train, test = sample('train')[:256], sample('test')[:200]
    else:
        train, test = cifar10('train'), cifar10('test')
    config = replace(small(FINAL) if sitting.small else FINAL, device=str(sitting.device))
    step = time_step(config, train, sitting.device, 2 if sitting.small else 20)['seconds']
    seconds = sitting.left() - EVALUATION
    epochs = int(.9 * seconds / step / (len(train) // config.batch))
    epochs = min(epochs, 2) if sitting.small else epochs
    if epochs < 1:
        log_line('no time is left for the run')
        return
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        model, history = pretrain(replace(config, epochs=epochs), train, progress=False,
                                  folder=f'{folder}/run')
        seconds = time.perf_counter() - start
    found = dict(epochs=epochs, seconds=seconds, loss=history[-1]['loss'],
                 settings=vars(replace(config, epochs=epochs)))
    sitting.keep('run', found)
    sitting.keep('run', found | accuracies(model.encoder, train, test))


class Sitting:
    "What is measured here, and the time that is left"
    def __init__(self, device, minutes, is_small):
        self.device, self.small = pick_device(device), is_small
        self.until = time.perf_counter() + 60 * minutes
        self.machine = describe_machine(self.device)
        if self.device.type == 'cuda':
            self.machine |= dict(cuda=torch.version.cuda, driver=driver())
        self.path = HERE / 'gpu.json'
        if is_small:
            self.path = Path(tempfile.gettempdir()) / 'simclr_nb gpu small.json'
            self.path.unlink(missing_ok=True)
        self.results = json.loads(self.path.read_text()) if self.path.exists() else {}
        if self.results.get('machine', {}).get('gpu') != self.machine['gpu']:
            self.results = {}
        self.results['machine'] = self.machine

    def left(self):
        "Seconds"
        return self.until - time.perf_counter()

    def seconds(self, most):
        "Seconds that are left, `most` at most, and one at least"
        return max(1., min(most, self.left()))

    def has(self, section, name=None):
        found = self.results.get(section, {})
        return bool(found if name is None else found.get(name))

    def keep(self, section, figures, name=None):
        log_line(f'{section} {name or ""}: {json.dumps(figures, default=str)[:200]}')
        if name is None:
            self.results[section] = figures
        else:
            self.results.setdefault(section, {})[name] = figures
        write_json(self.path, self.results)


def driver():
    query = ['nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader']
    try:
        return subprocess.run(query, capture_output=True, text=True).stdout.strip()
    except OSError:
        return None


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', default='cuda')
    parser.add_argument('--minutes', type=float, default=25.)
    parser.add_argument('--only', nargs='*', choices=SECTIONS, default=SECTIONS)
    parser.add_argument('--small', action='store_true')
    args = parser.parse_args()
    sitting = Sitting(args.device, args.minutes, args.small)
    torch.backends.cudnn.benchmark = True
    for section in args.only:
        if section in ('parts', 'steps') or not sitting.has(section):
            globals()[section](sitting)


if __name__ == '__main__':
    main()
