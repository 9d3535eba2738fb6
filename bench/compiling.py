"""What torch.compile gains on this machine: a pass forward and back through the tiny encoder
and its head, by width and precision, plain and compiled, and what the start costs.

    python bench/compiling.py    # half an hour of all cores; compiling.json
    python bench/compiling.py 'width 16'    # only rows that begin so
    python bench/compiling.py parts    # what a pass spends its time on; compiling_parts.json

Every round is a process of its own, in which plain and compiled take turns. The first round of
a row begins without any kernels, the others find them in a cache, as a second run does. Rows
that are stored for this processor are not measured again; `parts` always are.
"""
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch.profiler import profile

from long_runs import keep_result, need_beginning, read_results
from simclr_nb.compiling import compile_model, measure_compiled, seconds_of_pass
from simclr_nb.core import (describe_machine, full_precision, generator, has_bf16,
                            keep_freed_memory, pick_device)
from simclr_nb.resnet import ProjectionHead, SimCLR, init_weights, resnet_tiny

RESULTS = Path(__file__).resolve().parent / 'compiling.json'
PARTS = RESULTS.with_name('compiling_parts.json')
ROUNDS = 3
VIEWS = 256 # of 32x32 pixels, a pass
WIDTHS = (8, 16, 24, 32, 48, 64)
ALSO_ORDER_KEPT = (16, 32) # also without the compiler's order of maps, channels_last
OTHER_VIEWS = (128, 512, 1024) # a pass, at width 16, order kept
PASSES = 10 # that are looked at for their parts


def row_name(width, precision, order_kept, views):
    name = f'width {width}, {precision}'
    if views != VIEWS:
        name += f', {views} views'
    return name + (', order kept' if order_kept else '')


def precisions():
    return ['float32', 'bf16'] if has_bf16(pick_device('auto')) else ['float32']


def rows():
    "name -> width, precision, order_kept, views"
    wanted = [(width, precision, False, VIEWS) for width in WIDTHS
              for precision in precisions()]
    wanted += [(width, precision, True, VIEWS) for width in ALSO_ORDER_KEPT
               for precision in precisions()]
    wanted += [(16, precision, True, views) for views in OTHER_VIEWS
               for precision in precisions()]
    return {row_name(*what): what for what in wanted}


def make_pass(width, precision, count):
    "Encoder and head, views, and a function that makes a context for the pass forward"
    keep_freed_memory()
    device = pick_device('auto')
    model = SimCLR(resnet_tiny(width=width), ProjectionHead(8 * width))
    model = init_weights(model, generator(0, 'weights')).to(device)
    views = torch.rand(count, 3, 32, 32, generator=generator(0, 'bench')).to(device)
    def context():
        if precision == 'bf16':
            return torch.autocast(device.type, torch.bfloat16)
        return full_precision(device)
    return model, views, context


def operations(model, views, context):
    "name -> seconds in a pass, in the operation alone and with those that it calls"
    for _ in range(3): # to warm up
        seconds_of_pass(model, views, context)
    with profile() as seen:
        for _ in range(PASSES):
            seconds_of_pass(model, views, context)
    return {event.key: (event.self_cpu_time_total / 1e6 / PASSES,
                        event.cpu_time_total / 1e6 / PASSES) for event in seen.key_averages()}


def parts(width, precision, count): # in a process of its own
    "Seconds of a pass in convolutions and in all, plain and compiled"
    model, views, context = make_pass(width, precision, count)
    found = {}
    for way, call in (('plain', model), ('compiled', compile_model(model))):
        taken = operations(call, views, context)
        found[way] = dict(
            convolutions=sum(taken[f'aten::{name}'][1] # with what they copy and arrange
                             for name in ('convolution', 'convolution_backward')),
            all=sum(alone for alone, _ in taken.values()))
    return found


def measured(width, precision, count): # in a process of its own
    return measure_compiled(*make_pass(width, precision, count))


def in_process(option, cache, width, precision, order_kept, views):
    command = [sys.executable, __file__, option, json.dumps([width, precision, views])]
    env = os.environ | {'TORCHINDUCTOR_CACHE_DIR': cache}
    if order_kept: # as torch.compile's option layout_optimization=False
        env['TORCHINDUCTOR_LAYOUT_OPTIMIZATION'] = '0'
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        name = row_name(width, precision, order_kept, views)
        raise RuntimeError(f'{name} failed: {done.stderr.strip()[-800:]}')
    return json.loads(done.stdout.strip().splitlines()[-1])


def figures(what):
    with tempfile.TemporaryDirectory() as cache:
        rounds = [in_process('--worker', cache, *what) for _ in range(ROUNDS)]
    gains = [one['plain'] / one['compiled'] for one in rounds]
    return dict(gain=round(statistics.median(gains), 3), low=round(min(gains), 3),
                high=round(max(gains), 3),
                first_start=round(rounds[0]['start'], 1),
                later_start=round(statistics.median(one['start'] for one in rounds[1:]), 1),
                plain=[one['plain'] for one in rounds],
                compiled=[one['compiled'] for one in rounds],
                machine=describe_machine(pick_device('auto')))


def measure_parts():
    processor = describe_machine(pick_device('auto'))['cpu']
    for width in ALSO_ORDER_KEPT:
        for precision in precisions():
            with tempfile.TemporaryDirectory() as cache:
                found = in_process('--parts', cache, width, precision, True, VIEWS)
            name = row_name(width, precision, True, VIEWS)
            print(name, found, flush=True)
            keep_result(PARTS, [processor, name],
                        found | dict(machine=describe_machine(pick_device('auto'))))


def main(words):
    if words[:1] == ['--worker']:
        print(json.dumps(measured(*json.loads(words[1]))))
        return
    if words[:1] == ['--parts']:
        print(json.dumps(parts(*json.loads(words[1]))))
        return
    if words == ['parts']:
        measure_parts()
        return
    beginning = ' '.join(words)
    need_beginning(beginning, rows())
    processor = describe_machine(pick_device('auto'))['cpu']
    for name, what in rows().items():
        stored = read_results(RESULTS).get(processor, {})
        if name.startswith(beginning) and name not in stored:
            found = figures(what)
            print(f"{name}: {found['gain']:.2f} ({found['low']:.2f} to {found['high']:.2f}), "
                  f"start {found['first_start']:.0f} s, then {found['later_start']:.0f} s",
                  flush=True)
            keep_result(RESULTS, [processor, name], found)


if __name__ == '__main__':
    main(sys.argv[1:])
