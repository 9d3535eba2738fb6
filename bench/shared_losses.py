"""Losses over the views of several processes: how it is often done, right and wrong, and those
of libraries. `check_exact` of simclr_nb.distributed tries them; each is called by all processes
with two tensors (n, D), the two views of the process's own images, and returns a scalar whose
gradients are averaged over the processes, as DistributedDataParallel does it.

    python bench/shared_losses.py         # on 2 and 4 processes; shared_losses.json
    python bench/shared_losses.py NAME    # only this loss; what is stored of others stays

The libraries are those that are installed: lightly, pytorch-metric-learning, open_clip_torch.
"""
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F

from long_runs import keep_result, need
from simclr_nb.core import describe_machine
from simclr_nb.distributed import check_exact, world
from simclr_nb.ntxent import nt_xent

RESULTS = Path(__file__).resolve().parent / 'shared_losses.json'
TEMPERATURE = .1


def from_all(x): # (n, D) -> W of them, in the order of the processes
    everybody = [torch.empty_like(x) for _ in range(world()[1])]
    dist.all_gather(everybody, x.detach().contiguous())
    return everybody


class Gathered(torch.autograd.Function):
    "The rows of all processes; back goes the sum of all their gradients"
    @staticmethod
    def forward(ctx, x):
        return torch.cat(from_all(x))

    @staticmethod
    def backward(ctx, gradient):
        rank, processes = world()
        total = gradient.contiguous()
        dist.all_reduce(total)
        return total.chunk(processes)[rank]


def with_gradient(x): # (n, D) -> (W n, D), differentiable
    return x if world()[1] == 1 else Gathered.apply(x)


def without_gradient(x): # only the own rows have one
    rank, processes = world()
    if processes == 1:
        return x
    everybody = from_all(x)
    everybody[rank] = x
    return torch.cat(everybody)


# right

def gathered(first, second):
    "NT-Xent over all views, computed by everybody; gathering them is differentiable"
    return nt_xent(torch.cat([with_gradient(first), with_gradient(second)]), TEMPERATURE)


# wrong

def gathered_without_gradient(first, second):
    "The same after `all_gather`, through which no gradient comes"
    return nt_xent(torch.cat([without_gradient(first), without_gradient(second)]), TEMPERATURE)


def local_negatives(first, second):
    "Everybody the loss of the own images"
    return nt_xent(torch.cat([first, second]), TEMPERATURE)


def summed(first, second):
    "The sum over processes where the mean belongs"
    return gathered(first, second) * world()[1]


def in_wrong_order(first, second):
    "The second views of the processes in another order: strangers as partners"
    rank, processes = world()
    others = with_gradient(second).roll(len(second), 0) if processes > 1 else second
    return nt_xent(torch.cat([with_gradient(first), others]), TEMPERATURE)


# of libraries

def lightly_gathered(first, second):
    from lightly.loss import NTXentLoss
    return NTXentLoss(TEMPERATURE, gather_distributed=True)(first, second)


def lightly_default(first, second):
    from lightly.loss import NTXentLoss
    return NTXentLoss(TEMPERATURE)(first, second)


def metric_learning(first, second, **settings):
    from pytorch_metric_learning.losses import NTXentLoss
    from pytorch_metric_learning.utils.distributed import DistributedLossWrapper
    rank, processes = world()
    loss = NTXentLoss(TEMPERATURE)
    image = rank * len(first) + torch.arange(len(first)) # its number is its label
    if processes > 1:
        loss = DistributedLossWrapper(loss, **settings)
    return loss(torch.cat([first, second]), image.repeat(2))


def metric_learning_efficient(first, second):
    return metric_learning(first, second, efficient=True)


def clip_loss(**settings):
    from open_clip.loss import ClipLoss
    rank, processes = world()
    return ClipLoss(rank=rank, world_size=processes, **settings)


def open_clip_default(first, second):
    first, second = F.normalize(first, dim=1), F.normalize(second, dim=1)
    return clip_loss()(first, second, 1 / TEMPERATURE)


def open_clip_with_gradient(first, second):
    first, second = F.normalize(first, dim=1), F.normalize(second, dim=1)
    return clip_loss(gather_with_grad=True)(first, second, 1 / TEMPERATURE)


def open_clip_local(first, second):
    first, second = F.normalize(first, dim=1), F.normalize(second, dim=1)
    return clip_loss(local_loss=True)(first, second, 1 / TEMPERATURE)


def open_clip_local_with_gradient(first, second):
    first, second = F.normalize(first, dim=1), F.normalize(second, dim=1)
    return clip_loss(local_loss=True, gather_with_grad=True)(first, second, 1 / TEMPERATURE)


OUR_LOSSES = gathered, gathered_without_gradient, local_negatives, summed, in_wrong_order
OF_LIBRARIES = { # (package, module): losses
    ('lightly', 'lightly'): (lightly_gathered, lightly_default),
    ('pytorch-metric-learning', 'pytorch_metric_learning'):
        (metric_learning, metric_learning_efficient),
    ('open_clip_torch', 'open_clip'): (open_clip_default, open_clip_with_gradient,
                                       open_clip_local, open_clip_local_with_gradient)}


def try_loss(loss, world_size): # -> what check_exact says, or why it could not be run
    try:
        return check_exact(loss, world_size)
    except Exception as error:
        return dict(error=f'{type(error).__name__}: {str(error).strip().splitlines()[-1]}')


def known_losses(): # name -> loss, and the package it needs besides torch, or None
    losses = {loss.__name__: (loss, None) for loss in OUR_LOSSES}
    for (package, module), theirs in OF_LIBRARIES.items():
        if find_spec(module):
            losses |= {loss.__name__: (loss, package) for loss in theirs}
    return losses


def main(names):
    losses = known_losses()
    for name in names or losses:
        loss, package = need(name, losses, 'loss')
        row = {str(size): try_loss(loss, size) for size in (2, 4)}
        print(name, row, flush=True)
        versions = [f'{each} {version(each)}' for each in (package, 'torch') if each]
        keep_result(RESULTS, [name], row | dict(
            versions=versions, on=describe_machine(torch.device('cpu'))))


if __name__ == '__main__':
    main(sys.argv[1:])
