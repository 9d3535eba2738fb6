"""The parts of the method beside the libraries people use: speed, memory and equality.

    python bench/parts.py                  # all of it, half an hour on two cores; or: make bench
    python bench/parts.py augment ntxent   # these; what the file holds of the others stays
    python bench/parts.py --device cuda    # on a GPU; writes parts-cuda.json

Every contestant runs in a process of its own: warm-up, then the median of its calls. The processes take turns, `ROUNDS` times,
and a ratio is the median of the ratios within the rounds, with its range. Once with the system's allocator and, if it is installed,
once with tcmalloc, which keeps freed memory and so spares every large buffer its page faults.
"""
import argparse
import glob
import json
import os
import resource
import statistics
import subprocess
import sys
import time
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from simclr_nb.accumulate import accumulate
from simclr_nb.augment import COLUMNS, SimCLRAugment, Views, _hue, _mix, greyscale
from simclr_nb.core import atomic_path, describe_machine, generator, has_bf16, keep_freed_memory
from simclr_nb.data import sample
from simclr_nb.lars import LARS, param_groups
from simclr_nb.ntxent import nt_xent
from simclr_nb.resnet import ProjectionHead, SimCLR, resnet50, resnet_tiny

HERE = Path(__file__).resolve().parent
ROUNDS = 5
PEERS = ('lightly', 'kornia', 'pytorch-metric-learning', 'torchvision')


# 02: 1,024 CIFAR images through the whole CIFAR-10 pipeline

def augment_ours(device, n=1024):
    images, augment, g = sample('train').images[:n].to(device), SimCLRAugment(), generator(0, 'bench')
    return lambda: augment.apply(images, augment.draw(n, g))


def augment_kornia(device, n=1024):
    import kornia.augmentation as K
    images = sample('train').images[:n].to(device)
    pipeline = K.AugmentationSequential(K.RandomResizedCrop((32, 32), scale=(.08, 1.), ratio=(3/4, 4/3)), K.RandomHorizontalFlip(p=.5),
                                        K.ColorJitter(.4, .4, .4, .1, p=.8), K.RandomGrayscale(p=.2), same_on_batch=False)
    return lambda: pipeline(images.float() / 255)


def augment_torchvision(device, n=1024):
    from torchvision.transforms import v2
    images = sample('train').images[:n].to(device)
    pipeline = v2.Compose([v2.RandomResizedCrop(32, scale=(.08, 1.), antialias=True), v2.RandomHorizontalFlip(), v2.RandomApply([v2.ColorJitter(.4, .4, .4, .1)], p=.8),
                           v2.RandomGrayscale(.2), v2.ToDtype(torch.float32, scale=True)])
    return lambda: torch.stack([pipeline(image) for image in images])


# 03: forward and backward through the tiny encoder and its head

class PlainTiny(nn.Module):
    "The tiny encoder from torchvision's own blocks"
    def __init__(self):
        from torchvision.models.resnet import BasicBlock
        super().__init__()
        norm = lambda c: nn.GroupNorm(min(c, 32), c)
        parts, c = [nn.Conv2d(3, 16, 3, padding=1, bias=False), norm(16), nn.ReLU(inplace=True)], 16
        for k in range(4):
            out, stride = 16 * 2**k, 2 if k else 1
            shortcut = nn.Sequential(nn.Conv2d(c, out, 1, stride, bias=False), norm(out)) if k else None
            parts, c = parts + [BasicBlock(c, out, stride, shortcut, norm_layer=norm)], out
        self.body = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x): return self.body(x)


def encoder(build, dtype, rows, keep=False):
    def make(device):
        if keep: keep_freed_memory()
        model, x = SimCLR(build(), ProjectionHead(128)).to(device), torch.rand(rows, 3, 32, 32, generator=generator(0, 'bench')).to(device)
        def step():
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=dtype == 'bf16'): z = model(x)
            z.float().sum().backward()
        return step
    return make


# 04: the loss, forward and backward, at N images and 128 numbers per embedding

def embeddings(n, device): return torch.randn(2 * n, 128, generator=generator(0, 'bench')).to(device).requires_grad_()


def loss_ours(n):
    def make(device):
        z = embeddings(n, device)
        return lambda: nt_xent(z, .5).backward()
    return make


def lightly_loss(z, temperature):
    from lightly.loss import NTXentLoss
    return NTXentLoss(temperature=temperature)(*z.chunk(2))


def metric_learning_loss(z, temperature):
    from pytorch_metric_learning.losses import NTXentLoss, SelfSupervisedLoss
    return SelfSupervisedLoss(NTXentLoss(temperature=temperature))(*z.chunk(2))


def loss_of(f, n):
    def make(device):
        z = embeddings(n, device)
        return lambda: f(z, .5).backward()
    return make


# 05: one step over ResNet-50 and its head

def optimiser(build):
    def make(device):
        model = SimCLR(resnet50(), ProjectionHead(2048)).to(device)
        g = generator(0, 'bench')
        for p in model.parameters(): p.grad = (torch.randn(p.shape, generator=g) * 1e-3).to(device)
        return build(model).step
    return make


def lightly_lars(model):
    from lightly.utils.lars import LARS as theirs
    return theirs(model.parameters(), lr=.1, momentum=.9, weight_decay=1e-6)


OPTIMISERS = {'simclr_nb': optimiser(lambda m: LARS(param_groups(m), lr=.1)), 'lightly': optimiser(lightly_lars),
              'torch SGD': optimiser(lambda m: torch.optim.SGD(m.parameters(), lr=.1, momentum=.9, weight_decay=1e-6))}

# 06: the gradient of many views, in one pass and in K chunks; keep=0 is plain GradCache

def gradient_of(micro_batch, keep, dtype, rows):
    def make(device):
        keep_freed_memory() # as the commands do
        model, views = SimCLR(resnet_tiny(), ProjectionHead(128)).to(device), torch.rand(rows, 3, 32, 32, generator=generator(0, 'bench')).to(device)
        loss = lambda z: nt_xent(z.float(), .5)
        def step():
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=dtype == 'bf16'):
                if micro_batch: accumulate(model, views, loss, micro_batch, keep)
                else: z = model(views)
            if not micro_batch: loss(z).backward()
        return step
    return make


def chunked(dtype, rows, Ks): return {'one full pass': gradient_of(None, 1, dtype, rows)} | {f'K = {K}, keep = {k}': gradient_of(rows // K, k, dtype, rows) for K in Ks for k in (1, 0)}


def whole_step(micro_batch): # a step of n images whose views are made on demand
    def of(n):
        def make(device):
            model, augment = SimCLR(resnet_tiny(), ProjectionHead(128)).to(device), SimCLRAugment()
            images = sample('train').images.to(device)[torch.arange(n) % 5000]
            views = Views(images, augment.draw(2 * n, generator(0, 'bench')), augment)
            return lambda: accumulate(model, views, nt_xent, micro_batch)
        return make
    return of


CONTESTS = { # part -> contest -> (contestants, ours or the measure first; how many of what a call handles)
    'augment': {'1,024 views': ({'simclr_nb': augment_ours, 'kornia': augment_kornia, 'torchvision, image by image': augment_torchvision}, 1024, 'views/s')},
    'resnet': {f'{dtype}, {rows} views': ({'simclr_nb, as its commands run': encoder(resnet_tiny, dtype, rows, keep=True), 'simclr_nb': encoder(resnet_tiny, dtype, rows),
                                           'torchvision blocks': encoder(PlainTiny, dtype, rows)}, rows, 'views/s') for dtype in ('float32', 'bf16') for rows in (256, 512)},
    'ntxent': {'N = 128': ({'simclr_nb': loss_ours(128), 'lightly': loss_of(lightly_loss, 128), 'pytorch-metric-learning': loss_of(metric_learning_loss, 128)}, None, 'ms')} # the last lists all pairs: at 512 it takes 18 GB
              | {f'N = {n:,}': ({'simclr_nb': loss_ours(n), 'lightly': loss_of(lightly_loss, n)}, None, 'ms') for n in (2048, 4096)},
    'lars': {'ResNet-50, one step': (OPTIMISERS, None, 'ms')},
    'accumulate': {f'{dtype}, {rows:,} views': (chunked(dtype, rows, Ks), None, 'ms') for rows, Ks in ((1024, (1, 2, 8, 32)), (4096, (32,))) for dtype in ('float32', 'bf16')}}
MEMORY = {'memory': ({'simclr_nb': loss_ours, 'lightly': lambda n: loss_of(lightly_loss, n)}, (('simclr_nb', 4096), ('lightly', 4096), ('simclr_nb', 32768))),
          'accumulate-memory': ({'micro-batch 256': whole_step(256), 'one full pass': whole_step(None)},
                                [('micro-batch 256', n) for n in (128, 256, 512, 1024, 2048, 4096)] + [('one full pass', n) for n in (128, 256, 512, 1024)])}


def worker(part, contest, who, device):
    "Seconds a call takes in this process: the median after warm-up"
    call = CONTESTS[part][contest][0][who](device)
    wait = torch.cuda.synchronize if device == 'cuda' else lambda: None
    seconds, begin = [], None
    while begin is None or len(seconds) < 5 or time.perf_counter() - begin < 1.5 and len(seconds) < 50:
        start = time.perf_counter()
        call(); wait()
        if begin is None: call(); wait(); begin = time.perf_counter() # warm
        else: seconds.append(time.perf_counter() - start)
    return dict(seconds=statistics.median(seconds), calls=len(seconds))


def worker_memory(part, f, n, device):
    "Peak memory of one call in this process beyond what was there before it, and its seconds"
    make = MEMORY[part][0][f]
    make(64)(device)() # imports, thread pools
    call = make(n)(device)
    if device == 'cuda':
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else: before = int(next(l for l in Path('/proc/self/status').read_text().splitlines() if l.startswith('VmRSS')).split()[1]) * 1024
    start = time.perf_counter(); call()
    after = torch.cuda.max_memory_allocated() if device == 'cuda' else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return dict(bytes=after - before, seconds=time.perf_counter() - start)


def in_process(*what, tcmalloc=None):
    env = {k: v for k, v in os.environ.items() if k != 'LD_PRELOAD'} | ({'LD_PRELOAD': tcmalloc} if tcmalloc else {})
    p = subprocess.run([sys.executable, __file__, '--worker', json.dumps(what)], env=env, capture_output=True, text=True)
    if p.returncode: raise RuntimeError(f'{what} failed: {p.stderr.strip()[-800:]}')
    return json.loads(p.stdout.strip().splitlines()[-1])


def find_tcmalloc():
    found = sorted(glob.glob('/usr/lib/*/libtcmalloc*.so.*') + glob.glob('/usr/lib*/libtcmalloc*.so.*') + glob.glob('/opt/homebrew/lib/libtcmalloc*.dylib'))
    return next((f for f in found if 'debug' not in f and 'profiler' not in f), None)


def measure(part, device, say):
    "All contests of a part; rows of contest, allocator, contestant, figure, and the ratio to ours"
    allocators = {'default': None} | ({'tcmalloc': find_tcmalloc()} if find_tcmalloc() and device == 'cpu' else {})
    rows = []
    for contest, (who, units, unit) in CONTESTS[part].items():
        if contest.startswith('bf16') and not has_bf16(torch.device(device)): continue # emulated: no figure worth having
        seconds = {(a, w): [] for a in allocators for w in who}
        for k in range(ROUNDS):
            for a, w in seconds:
                if ('commands' in w or part == 'accumulate') and a == 'tcmalloc': continue # they use glibc's thresholds
                seconds[a, w].append(in_process(part, contest, w, device, tcmalloc=allocators[a])['seconds'])
                say(f'{part}: {contest}, {a}, round {k + 1}: {w} {1e3 * seconds[a, w][-1]:.1f} ms')
        for (a, w), s in seconds.items():
            if not s: continue
            ours = next(seconds[a, o] for o in who if seconds[a, o]) # the first: ours
            times = [t / o for o, t in zip(ours, s)]
            figure = statistics.median(s)
            rows.append(dict(contest=contest, allocator=a, who=w, figure=round(units / figure) if units else round(1e3 * figure, 2), unit=unit, seconds=s,
                             times_ours=round(statistics.median(times), 3), low=round(min(times), 3), high=round(max(times), 3)))
    return rows


def table(rows, first='ours'):
    lines = [f'{"":22}{"allocator":11}{"":32}{"":>18}   time / {first} (range)']
    for r in rows:
        lines.append(f'{r["contest"]:22}{r["allocator"]:11}{r["who"]:32}{r["figure"]:>10,} {r["unit"]:7}   {r["times_ours"]:.2f} ({r["low"]:.2f} to {r["high"]:.2f})')
    return '\n'.join(lines)


def measure_memory(part, device, say):
    rows = []
    for who, n in MEMORY[part][1]:
        runs = [in_process('memory', part, who, n, device) for _ in range(3 if n < 32768 else 1)]
        rows.append(dict(who=who, n=n, megabytes=round(statistics.median(r['bytes'] for r in runs) / 1e6, 1), seconds=round(statistics.median(r['seconds'] for r in runs), 2)))
        say(f'{part}: {rows[-1]}')
    return rows


# equality: the same numbers in, the same numbers out

def equality():
    "Largest differences from the peers for the same inputs, in float64 for the loss; raises if a loss is not equal"
    import kornia
    worst = {}
    z = torch.randn(60, 16, generator=generator(0, 'equal'), dtype=torch.float64, requires_grad=True)
    google = lambda z, t: _two_sides(z, t) / 2
    for name, f in (('lightly', lightly_loss), ('pytorch-metric-learning', metric_learning_loss), ("half of google-research's two-sided sum", google)):
        for t in (.1, .5, 1.):
            for tile in (None, 7):
                ours, theirs = nt_xent(z, t, tile), f(z, t)
                gap = max((ours - theirs).abs().item(), *((a - b).abs().max().item() for a, b in zip(torch.autograd.grad(ours, z), torch.autograd.grad(theirs, z))))
                worst[f'loss and gradient, {name}'] = max(gap, worst.get(f'loss and gradient, {name}', 0))
    for name, gap in worst.items():
        if gap > 1e-9: raise AssertionError(f'{name}: {gap}') # float64; lightly's own arithmetic leaves some 1e-12
    x = sample('train').images[:256] / 255
    f = .2 + 1.6 * torch.rand(256, generator=generator(1, 'equal'))
    hue = torch.rand(256, generator=generator(2, 'equal')) - .5
    op = lambda k: _mix(x.clone(), f, torch.full((256,), k))
    kornia_ops = {'brightness': (op(0), kornia.enhance.adjust_brightness_accumulative(x, f)),
                  'contrast': (op(1), kornia.enhance.adjust_contrast_with_mean_subtraction(x, f)),
                  'saturation': (op(2), kornia.enhance.adjust_saturation_with_gray_subtraction(x, f)),
                  'hue': (_hue(x.clone(), hue), kornia.enhance.adjust_hue(x, 2 * torch.pi * hue)),
                  'greyscale': (greyscale(x), kornia.color.rgb_to_grayscale(x))}
    for name, (ours, theirs) in kornia_ops.items(): worst[f'{name}, kornia'] = (ours - theirs).abs().max().item()
    augment = SimCLRAugment(jitter=0, grey=0, flip=0)
    d = augment.draw(256, generator(3, 'equal'))
    top, left, height, width = (d[:, COLUMNS.index(k)] for k in ('top', 'left', 'height', 'width'))
    outermost = lambda start, length: (start + (i + .5) * length / 32 - .5 for i in (0, 31)) # centres of the output's first and last pixel
    (x0, x1), (y0, y1) = outermost(left, width), outermost(top, height) # kornia's boxes join pixel centres
    corners = torch.stack([torch.stack(p, 1) for p in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))], 1)
    theirs = kornia.geometry.transform.crop_and_resize(x, corners, (32, 32), align_corners=True)
    inside = lambda start, length: (lambda c: (c >= start[:, None]) & (c <= (start + length - 1)[:, None]))((start[:, None] + (torch.arange(32) + .5) * length[:, None] / 32 - .5))
    both = inside(top, height)[:, None, :, None] & inside(left, width)[:, None, None, :] # where no pixel outside the crop would be needed
    worst['crop inside its border, kornia'] = ((augment.apply(sample('train').images[:256], d) - theirs) * both).abs().max().item()
    for name, gap in worst.items(): # kornia's grey weights have three digits
        if 'kornia' in name and gap > (2e-4 if name.split(',')[0] in ('contrast', 'saturation', 'greyscale') else 1e-5): raise AssertionError(f'{name}: {gap}')
    return {k: float(f'{v:.2e}') for k, v in worst.items()}


def _two_sides(z, temperature):
    a, b = F.normalize(z).chunk(2)
    masked = lambda x: (x @ x.T / temperature).fill_diagonal_(-1e9)
    return sum(F.cross_entropy(torch.cat([x @ y.T / temperature, masked(x)], 1), torch.arange(len(x))) for x, y in ((a, b), (b, a)))


def installed(name):
    try: return version(name)
    except PackageNotFoundError: return None


def hardware_line(m):
    versions = ', '.join(f'{name} {m[name]}' for name in ('torch', *PEERS))
    return f"{m['gpu'] or m['cpu']}, {m['threads']} threads, Python {m['python']}, {versions}; simclr_nb at {m['commit']}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('parts', nargs='*', help=f'{", ".join([*CONTESTS, *MEMORY])}, equality; all if none is named')
    parser.add_argument('--device', default='cpu', choices=('cpu', 'cuda'))
    parser.add_argument('--worker', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        warnings.filterwarnings('ignore') # of the peers
        what = json.loads(args.worker)
        return print(json.dumps(worker_memory(*what[1:]) if what[0] == 'memory' else worker(*what)))
    jobs = {part: lambda part=part: (lambda rows: dict(rows=rows, table=table(rows, 'full pass' if part == 'accumulate' else 'ours')))(measure(part, args.device, say)) for part in CONTESTS}
    jobs |= {part: lambda part=part: dict(rows=measure_memory(part, args.device, say)) for part in MEMORY}
    jobs |= {'equality': lambda: dict(largest_difference=equality())}
    unknown = set(args.parts) - set(jobs)
    if unknown: parser.error(f'no such part: {", ".join(sorted(unknown))}; there are {", ".join(jobs)}')
    path = HERE / ('parts.json' if args.device == 'cpu' else f'parts-{args.device}.json')
    results = json.loads(path.read_text()) if path.exists() else {}
    say = lambda text: print(text, file=sys.stderr, flush=True)
    for part in args.parts or jobs:
        machine = describe_machine(torch.device(args.device)) | {name: installed(name) for name in PEERS} | {'threads': torch.get_num_threads(), 'tcmalloc': bool(find_tcmalloc())}
        results[part] = dict(command=f'python bench/parts.py {part}', machine=machine, hardware=hardware_line(machine)) | jobs[part]()
        with atomic_path(path, overwrite=True) as p: p.write_text(json.dumps(results, indent=1) + '\n') # a part that is done is kept
    for part, r in results.items():
        print(f'\n{part}')
        print(r['table'] if 'table' in r else '\n'.join(map(str, r['rows'])) if 'rows' in r else '\n'.join(f'{v:<10.2g}{k}' for k, v in r['largest_difference'].items()))
    print(f'\nin {path.name}, with machine, versions and commit')


if __name__ == '__main__': main()
