"""An animation of what NT-Xent does: embeddings of two numbers, on the circle, while a small
network learns, at three temperatures.

    OMP_NUM_THREADS=1 python bench/circle.py    # some minutes; writes nbs/circle.gif
"""
import io
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from PIL import Image

from simclr_nb.augment import two_views
from simclr_nb.core import generator, keep_freed_memory
from simclr_nb.data import sample
from simclr_nb.evaluate import alignment, uniformity
from simclr_nb.runs import TrainConfig
from simclr_nb.train import prepare, step_views, update

PLACE = Path(__file__).resolve().parent.parent / 'nbs/circle.gif'
SETTINGS = TrainConfig(width=8, groups=8, weight_standardised=True, head_out=2, size=16,
                       batch=128, epochs=12, lr=2., precision='float32', device='cpu',
                       compile=False)
TEMPERATURES = (.02, .5, 10.)
SHOWN = 90 # images, two views each
EVERY = 9 # steps between two frames
COLOURS = ('#0072B2', '#D55E00', '#009E73') # of three classes
NAMES = ('ships', 'deer', 'cars')


def shown_images():
    "Some images of three classes that are easy to tell apart, and their classes 0 to 2"
    test = sample('test')
    rows = [(test.labels == label).nonzero().flatten()[:SHOWN // 3] for label in (8, 4, 1)]
    return test.images[torch.cat(rows)], torch.arange(3).repeat_interleave(SHOWN // 3)


def frames(temperature, views):
    "Points on the circle (2 SHOWN, 2), every some steps of a run"
    training = prepare(replace(SETTINGS, temperature=temperature), sample('train'))
    for step in range(training.total_steps + 1):
        if step % EVERY == 0:
            with torch.no_grad():
                yield F.normalize(training.model(views), dim=1)
        if step < training.total_steps:
            update(training, step_views(training, step), step)


def draw(axes, points, classes, title):
    axes.add_patch(plt.Circle((0, 0), 1, fill=False, color='#BDC1C6'))
    angle = torch.atan2(points[:, 1], points[:, 0])
    shift = 1 + .06 * torch.randn(len(points), generator=generator(0, 'jitter'))
    x, y = shift * angle.cos(), shift * angle.sin() # a little off the circle, to be seen
    colours = [COLOURS[k] for k in classes.repeat(2).tolist()]
    for first, second in enumerate(range(len(points) // 2, len(points))): # partners
        axes.plot((x[first], x[second]), (y[first], y[second]), color=colours[first],
                  linewidth=.5, alpha=.4)
    axes.scatter(x, y, s=9, c=colours, linewidths=0, zorder=3)
    axes.set(xlim=(-1.25, 1.25), ylim=(-1.25, 1.25), aspect='equal')
    axes.axis('off')
    axes.set_title(title, fontsize=10)
    words = f'alignment {alignment(points):.2f}\nuniformity {uniformity(points):.2f}'
    axes.text(0, 0, words, ha='center', va='center', fontsize=9, zorder=4,
              bbox=dict(facecolor='white', edgecolor='none', pad=2))


def one_frame(step, by_temperature, classes):
    figure, axes = plt.subplots(1, 3, figsize=(7.2, 2.75), dpi=90)
    for ax, (temperature, points) in zip(axes, by_temperature.items()):
        draw(ax, points, classes, f'temperature {temperature:g}')
    figure.text(.01, .02, f'step {step}', fontsize=9)
    for k, (name, colour) in enumerate(zip(NAMES, COLOURS)):
        figure.text(.315, .18 - .08 * k, name, color=colour, fontsize=9)
    figure.subplots_adjust(0, .02, 1, .9, 0, 0)
    buffer = io.BytesIO()
    figure.savefig(buffer)
    plt.close(figure)
    return Image.open(buffer).convert('RGB')


def main():
    keep_freed_memory()
    images, classes = shown_images()
    views = two_views(images, SETTINGS.augmentation(), generator(0, 'circle'))
    runs = zip(*(frames(temperature, views) for temperature in TEMPERATURES))
    pictures = []
    for k, points in enumerate(runs):
        pictures.append(one_frame(k * EVERY, dict(zip(TEMPERATURES, points)), classes))
    palette = pictures[0].quantize(20, dither=Image.Dither.NONE) # one for all: fixed colours
    pictures = [each.quantize(palette=palette, dither=Image.Dither.NONE) for each in pictures]
    last = [pictures[-1]] * 15 # stand still for a while
    pictures[0].save(PLACE, save_all=True, append_images=pictures[1:] + last, duration=100,
                     loop=0, optimize=True)
    print(f'{PLACE.name}: {len(pictures)} frames, {PLACE.stat().st_size / 1e6:.2f} MB')


if __name__ == '__main__':
    main()
