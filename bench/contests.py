"Who meets whom in parts.py; a contestant is a function of the device, giving a call to time"
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from equality import lightly_loss, metric_learning_loss
from loops import (IMAGES, lightly_parts, loops_of, our_epoch, their_epoch,
                   torchvision_parts)
from simclr_nb.accumulate import accumulate
from simclr_nb.augment import SimCLRAugment, Views
from simclr_nb.core import generator, keep_freed_memory
from simclr_nb.data import sample
from simclr_nb.lars import LARS, param_groups
from simclr_nb.ntxent import nt_xent
from simclr_nb.resnet import ProjectionHead, SimCLR, resnet50, resnet_tiny


# 02: 1,024 CIFAR images through the whole CIFAR-10 pipeline

def augment_ours(device, n=1024):
    images, augment = sample('train').images[:n].to(device), SimCLRAugment()
    g = generator(0, 'bench')
    return lambda: augment.apply(images, augment.draw(n, g))


def augment_kornia(device, n=1024):
    import kornia.augmentation as K
    images = sample('train').images[:n].to(device)
    pipeline = K.AugmentationSequential(
        K.RandomResizedCrop((32, 32), scale=(.08, 1.), ratio=(3/4, 4/3)),
        K.RandomHorizontalFlip(p=.5), K.ColorJitter(.4, .4, .4, .1, p=.8),
        K.RandomGrayscale(p=.2), same_on_batch=False)
    return lambda: pipeline(images.float() / 255)


def augment_torchvision(device, n=1024):
    from torchvision.transforms import v2
    images = sample('train').images[:n].to(device)
    pipeline = v2.Compose([
        v2.RandomResizedCrop(32, scale=(.08, 1.), antialias=True), v2.RandomHorizontalFlip(),
        v2.RandomApply([v2.ColorJitter(.4, .4, .4, .1)], p=.8), v2.RandomGrayscale(.2),
        v2.ToDtype(torch.float32, scale=True)])
    return lambda: torch.stack([pipeline(image) for image in images])


# 03: forward and backward through the tiny encoder and its head

class PlainTiny(nn.Module):
    "The tiny encoder from torchvision's own blocks"
    def __init__(self):
        from torchvision.models.resnet import BasicBlock
        super().__init__()
        def norm(channels):
            return nn.GroupNorm(min(channels // 2, 32), channels) # at least 2 in a group
        parts = [nn.Conv2d(3, 16, 3, padding=1, bias=False), norm(16), nn.ReLU(inplace=True)]
        c_in = 16
        for stage in range(4):
            c, stride, shortcut = 16 * 2**stage, 1, None
            if stage > 0:
                stride = 2
                shortcut = nn.Sequential(nn.Conv2d(c_in, c, 1, stride, bias=False), norm(c))
            parts.append(BasicBlock(c_in, c, stride, shortcut, norm_layer=norm))
            c_in = c
        self.body = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x):
        return self.body(x)


def encoder(build, dtype, rows, keep=False):
    def make(device):
        if keep:
            keep_freed_memory()
        model = SimCLR(build(), ProjectionHead(128)).to(device)
        x = torch.rand(rows, 3, 32, 32, generator=generator(0, 'bench')).to(device)
        def step():
            is_bf16 = dtype == 'bf16'
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=is_bf16):
                z = model(x)
            z.float().sum().backward()
        return step
    return make


# 04: the loss, forward and backward, at N images and 128 numbers per embedding

def loss_of(loss, n):
    def make(device):
        z = torch.randn(2 * n, 128, generator=generator(0, 'bench')).to(device).requires_grad_()
        return lambda: loss(z, .5).backward()
    return make


# 05: one step over ResNet-50 and its head

def optimiser(build):
    def make(device):
        model = SimCLR(resnet50(), ProjectionHead(2048)).to(device)
        g = generator(0, 'bench')
        for p in model.parameters():
            p.grad = (torch.randn(p.shape, generator=g) * 1e-3).to(device)
        return build(model).step
    return make


def our_lars(model):
    return LARS(param_groups(model), lr=.1)


def lightly_lars(model):
    from lightly.utils.lars import LARS as theirs
    return theirs(model.parameters(), lr=.1, momentum=.9, weight_decay=1e-6)


def torch_sgd(model):
    return torch.optim.SGD(model.parameters(), lr=.1, momentum=.9, weight_decay=1e-6)


# 06: the gradient of many views, in one pass and in K chunks; keep=0 is plain GradCache

def gradient_of(micro_batch, keep, dtype, rows):
    def make(device):
        keep_freed_memory() # as the commands do
        model = SimCLR(resnet_tiny(), ProjectionHead(128)).to(device)
        views = torch.rand(rows, 3, 32, 32, generator=generator(0, 'bench')).to(device)
        def loss(z):
            return nt_xent(z.float(), .5)
        def step():
            is_bf16 = dtype == 'bf16'
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=is_bf16):
                if micro_batch:
                    accumulate(model, views, loss, micro_batch, keep)
                    return
                z = model(views)
            loss(z).backward()
        return step
    return make


def chunked(dtype, rows, chunks):
    contestants = {'one full pass': gradient_of(None, 1, dtype, rows)}
    for K in chunks:
        for keep in (1, 0):
            contestants[f'K = {K}, keep = {keep}'] = gradient_of(rows // K, keep, dtype, rows)
    return contestants


def whole_step(micro_batch, n): # a step of n images whose views are made on demand
    def make(device):
        model = SimCLR(resnet_tiny(), ProjectionHead(128)).to(device)
        augment = SimCLRAugment()
        images = sample('train').images.to(device)[torch.arange(n) % 5000]
        views = Views(images, augment.draw(2 * n, generator(0, 'bench')), augment)
        return lambda: accumulate(model, views, nt_xent, micro_batch)
    return make


# who meets whom

class Contest(NamedTuple):
    contestants: dict # name -> contestant; ours, or the measure, first
    handled: int = None # how many of what a call handles; None: its milliseconds count
    unit: str = 'ms'


AUGMENT = {'simclr_nb': augment_ours, 'kornia': augment_kornia,
           'torchvision, image by image': augment_torchvision}
OPTIMISERS = {'simclr_nb': optimiser(our_lars), 'lightly': optimiser(lightly_lars),
              'torch SGD': optimiser(torch_sgd)}
CONTESTS = dict(augment={'1,024 views': Contest(AUGMENT, 1024, 'views/s')}, resnet={},
                ntxent={}, lars={'ResNet-50, one step': Contest(OPTIMISERS)}, accumulate={},
                epoch={})

for dtype in ('float32', 'bf16'):
    for rows in (256, 512):
        CONTESTS['resnet'][f'{dtype}, {rows} views'] = Contest({
            'simclr_nb, as its commands run': encoder(resnet_tiny, dtype, rows, keep=True),
            'simclr_nb': encoder(resnet_tiny, dtype, rows),
            'torchvision blocks': encoder(PlainTiny, dtype, rows)}, rows, 'views/s')

for n in (128, 2048, 4096):
    losses = {'simclr_nb': loss_of(nt_xent, n), 'lightly': loss_of(lightly_loss, n)}
    if n == 128: # it lists all pairs: at 512 it takes 18 GB
        losses['pytorch-metric-learning'] = loss_of(metric_learning_loss, n)
    CONTESTS['ntxent'][f'N = {n:,}'] = Contest(losses)

for rows, chunks in ((1024, (1, 2, 8, 32)), (4096, (32,))):
    for dtype in ('float32', 'bf16'):
        contest = Contest(chunked(dtype, rows, chunks))
        CONTESTS['accumulate'][f'{dtype}, {rows:,} views'] = contest

for dtype in ('float32', 'bf16'): # 09: from images to moved weights
    CONTESTS['epoch'][dtype] = Contest(loops_of(dtype), IMAGES, 'images/s')


class MemoryContest(NamedTuple):
    contestants: dict # name -> function of N, the number of images, that gives the contestant
    runs: list # of (name, N)
    warm_up: int = 64 # images of the call before, whose memory is not counted


MEMORY = {
    'memory': MemoryContest(
        {'simclr_nb': partial(loss_of, nt_xent), 'lightly': partial(loss_of, lightly_loss)},
        [('simclr_nb', 4096), ('lightly', 4096), ('simclr_nb', 32768)]),
    'accumulate-memory': MemoryContest(
        {'micro-batch 256': partial(whole_step, 256),
         'one full pass': partial(whole_step, None)},
        [('micro-batch 256', n) for n in (128, 256, 512, 1024, 2048, 4096)]
        + [('one full pass', n) for n in (128, 256, 512, 1024)]),
    'epoch-memory': MemoryContest(
        {'simclr_nb': partial(our_epoch, 'float32'),
         'lightly, 0 workers': partial(their_epoch, lightly_parts, 'float32', 0),
         'torchvision, 0 workers': partial(their_epoch, torchvision_parts, 'float32', 0)},
        [(who, IMAGES) for who in ('simclr_nb', 'lightly, 0 workers',
                                   'torchvision, 0 workers')], warm_up=4)}
