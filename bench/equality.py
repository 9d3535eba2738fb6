"""The same numbers in, the same numbers out: simclr_nb beside lightly, kornia and others.

`python bench/parts.py equality` runs it and keeps what it finds in parts.json.
"""
import torch
import torch.nn.functional as F

from simclr_nb.augment import COLUMNS, SimCLRAugment, blend, greyscale, turn_hue
from simclr_nb.core import generator
from simclr_nb.data import sample
from simclr_nb.ntxent import nt_xent


def lightly_loss(z, temperature):
    from lightly.loss import NTXentLoss
    return NTXentLoss(temperature=temperature)(*z.chunk(2))


def metric_learning_loss(z, temperature):
    from pytorch_metric_learning.losses import NTXentLoss, SelfSupervisedLoss
    return SelfSupervisedLoss(NTXentLoss(temperature=temperature))(*z.chunk(2))


def one_side(a, b, temperature):
    across = a @ b.T / temperature
    within = (a @ a.T / temperature).fill_diagonal_(-1e9)
    return F.cross_entropy(torch.cat([across, within], 1), torch.arange(len(a)))


def half_of_two_sides(z, temperature): # as google-research/simclr lays it out
    a, b = F.normalize(z).chunk(2)
    return (one_side(a, b, temperature) + one_side(b, a, temperature)) / 2


LOSSES = {'lightly': lightly_loss, 'pytorch-metric-learning': metric_learning_loss,
          "half of google-research's two-sided sum": half_of_two_sides}


def largest(difference):
    return difference.abs().max().item()


def loss_gaps():
    "Largest difference in value and gradient from each peer's loss, float64"
    z = torch.randn(60, 16, generator=generator(0, 'equal'), dtype=torch.float64)
    z.requires_grad_()
    gaps = {}
    for name, loss in LOSSES.items():
        worst = 0.
        for temperature in (.1, .5, 1.):
            theirs = loss(z, temperature)
            their_gradient, = torch.autograd.grad(theirs, z)
            for tile in (None, 7):
                ours = nt_xent(z, temperature, tile)
                our_gradient, = torch.autograd.grad(ours, z)
                worst = max(worst, largest(ours - theirs),
                            largest(our_gradient - their_gradient))
        gaps[f'loss and gradient, {name}'] = worst
    return gaps


def colour_gaps():
    "Largest difference from kornia's colour operations, by their names"
    import kornia
    x = sample('train').images[:256] / 255
    factor = .2 + 1.6 * torch.rand(256, generator=generator(1, 'equal'))
    hue = torch.rand(256, generator=generator(2, 'equal')) - .5
    def mixed(which): # 0: brightness, 1: contrast, 2: saturation
        return blend(x.clone(), factor, torch.full((256,), which))
    enhance = kornia.enhance
    pairs = {
        'brightness': (mixed(0), enhance.adjust_brightness_accumulative(x, factor)),
        'contrast': (mixed(1), enhance.adjust_contrast_with_mean_subtraction(x, factor)),
        'saturation': (mixed(2), enhance.adjust_saturation_with_gray_subtraction(x, factor)),
        'hue': (turn_hue(x.clone(), hue), enhance.adjust_hue(x, 2 * torch.pi * hue)),
        'greyscale': (greyscale(x), kornia.color.rgb_to_grayscale(x))}
    return {name: largest(ours - theirs) for name, (ours, theirs) in pairs.items()}


def centres(start, length): # of a crop's 32 output pixels, in pixels of the image
    return start[:, None] + (torch.arange(32) + .5) * length[:, None] / 32 - .5


def within(start, length): # which of the 32 need no pixel outside the crop
    c = centres(start, length)
    return (c >= start[:, None]) & (c <= (start + length - 1)[:, None])


def crop_gap():
    "Largest difference from kornia's crop, where no pixel outside the crop would be needed"
    import kornia
    images = sample('train').images[:256]
    augment = SimCLRAugment(jitter=0, grey=0, flip=0)
    draws = augment.draw(256, generator(3, 'equal'))
    top, left, height, width = (draws[:, COLUMNS.index(name)]
                                for name in ('top', 'left', 'height', 'width'))
    # kornia's boxes join the centres of the output's first and last pixels
    x0, x1 = (left + (i + .5) * width / 32 - .5 for i in (0, 31))
    y0, y1 = (top + (i + .5) * height / 32 - .5 for i in (0, 31))
    corners = [torch.stack(point, 1) for point in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))]
    theirs = kornia.geometry.transform.crop_and_resize(
        images / 255, torch.stack(corners, 1), (32, 32), align_corners=True)
    inside = within(top, height)[:, None, :, None] & within(left, width)[:, None, None, :]
    return largest((augment.apply(images, draws) - theirs) * inside)


def require_small(name, gap, allowed):
    if gap > allowed:
        raise AssertionError(f'{name}: {gap}')


def equality():
    """Largest differences from the peers for the same inputs, a dict

    Raises: `AssertionError` where they are more than rounding."""
    found = loss_gaps()
    for name, gap in found.items():
        require_small(name, gap, 1e-9) # lightly's own arithmetic leaves some 1e-12
    for name, gap in colour_gaps().items():
        # kornia's grey weights have three digits
        has_grey = name in ('contrast', 'saturation', 'greyscale')
        require_small(name, gap, 2e-4 if has_grey else 1e-5)
        found[f'{name}, kornia'] = gap
    found['crop inside its border, kornia'] = crop_gap()
    require_small('crop', found['crop inside its border, kornia'], 1e-5)
    return {name: float(f'{gap:.2e}') for name, gap in found.items()}
