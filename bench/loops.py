"""An epoch of training as others write it, to compare with: from images in memory to moved
weights, the same encoder and head, batches of 256 of the bundled sample, views of 32x32 pixels,
the augmentation of CIFAR-10.

lightly's loop has lightly's transform, on PIL images in a DataLoader, its loss and its LARS;
torchvision's has torchvision's transforms, a loss of a few lines and torch's SGD; ours LARS.
Ours keeps freed memory, as our commands do. The others are timed as they are and once more with
that call of ours, which any program may make.

A function of the device, as in contests.py, gives a call to time, which trains one epoch.
"""
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from simclr_nb.core import generator, keep_freed_memory
from simclr_nb.data import sample
from simclr_nb.resnet import ProjectionHead, SimCLR, resnet_tiny
from simclr_nb.runs import TrainConfig
from simclr_nb.train import prepare, step_views, update

BATCH = 256 # or all images, if they are fewer
IMAGES = 5 * BATCH # of an epoch
TEMPERATURE = .5


def our_epoch(precision, images=IMAGES):
    "As `pretrain` does it, without its files and its progress bar"
    def make(device):
        keep_freed_memory()
        config = TrainConfig(batch=min(BATCH, images), temperature=TEMPERATURE,
                             precision=precision, device=device, compile=False, epochs=1000)
        training = prepare(config, sample('train')[:images])
        steps = iter(range(training.total_steps))
        def epoch():
            for _ in range(training.steps_per_epoch):
                step = next(steps)
                update(training, step_views(training, step), step)
        return epoch
    return make


class TwoViews(Dataset):
    "PIL images through a transform that gives their two views"
    def __init__(self, images, transform):
        self.images = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
        self.transform = transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, k):
        return self.transform(self.images[k])


def lightly_parts(model):
    "(transform of a PIL image to two views, loss of the two halves of z, optimiser)"
    from lightly.loss import NTXentLoss
    from lightly.transforms import SimCLRTransform
    from lightly.utils.lars import LARS
    transform = SimCLRTransform(input_size=32, cj_strength=.5, gaussian_blur=0.)
    optimiser = LARS(model.parameters(), lr=.1, momentum=.9, weight_decay=1e-6)
    return transform, NTXentLoss(TEMPERATURE), optimiser


def plain_loss(first, second): # (N, D) each
    z = F.normalize(torch.cat([first, second]), dim=1)
    similarities = z @ z.T / TEMPERATURE
    similarities.fill_diagonal_(float('-inf'))
    partner = torch.arange(len(z), device=z.device).roll(len(first))
    return F.cross_entropy(similarities, partner)


def torchvision_parts(model):
    from torchvision.transforms import v2
    one_view = v2.Compose([
        v2.RandomResizedCrop(32, scale=(.08, 1.), antialias=True), v2.RandomHorizontalFlip(),
        v2.RandomApply([v2.ColorJitter(.4, .4, .4, .1)], p=.8), v2.RandomGrayscale(.2),
        v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    optimiser = torch.optim.SGD(model.parameters(), lr=.1, momentum=.9, weight_decay=1e-6)
    return lambda image: [one_view(image), one_view(image)], plain_loss, optimiser


def their_epoch(parts, precision, workers, images=IMAGES, keeps_memory=False):
    def make(device):
        if keeps_memory: # as ours does
            keep_freed_memory()
        torch.manual_seed(0)
        model = SimCLR(resnet_tiny(), ProjectionHead(128)).to(device)
        transform, loss, optimiser = parts(model)
        dataset = TwoViews(sample('train').images[:images], transform)
        loader = DataLoader(dataset, min(BATCH, images), shuffle=True, drop_last=True,
                            num_workers=workers, persistent_workers=workers > 0)
        kind, is_bf16 = torch.device(device).type, precision == 'bf16'
        def epoch():
            for first, second in loader:
                views = torch.cat([first, second]).to(device)
                with torch.autocast(kind, torch.bfloat16, enabled=is_bf16):
                    z = model(views)
                optimiser.zero_grad()
                loss(*z.float().chunk(2)).backward()
                optimiser.step()
        return epoch
    return make


def encoder_alone(precision, images=IMAGES):
    "Forward and backward only, with views that are there and in memory that is kept"
    def make(device):
        keep_freed_memory()
        model = SimCLR(resnet_tiny(), ProjectionHead(128)).to(device)
        batch = min(BATCH, images)
        views = torch.rand(2 * batch, 3, 32, 32, generator=generator(0, 'bench')).to(device)
        kind, is_bf16 = torch.device(device).type, precision == 'bf16'
        def epoch():
            for _ in range(images // batch):
                with torch.autocast(kind, torch.bfloat16, enabled=is_bf16):
                    z = model(views)
                z.float().sum().backward()
        return epoch
    return make


def loops_of(precision):
    "name -> contestant, ours first"
    loops = {'simclr_nb, as its commands run but not compiled': our_epoch(precision)}
    for keeps_memory in (False, True):
        ending = ', memory kept' if keeps_memory else ''
        for name, parts, workers in (('lightly', lightly_parts, 0),
                                     ('lightly', lightly_parts, 2),
                                     ('torchvision', torchvision_parts, 2)):
            loops[f'{name}, {workers} workers{ending}'] = their_epoch(
                parts, precision, workers, keeps_memory=keeps_memory)
    loops['the encoder alone, memory kept'] = encoder_alone(precision)
    return loops
