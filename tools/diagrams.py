"""Draw the diagrams of the notebooks, nbs/diagram-*.svg, and the site's signs: favicon.svg and
card.png.

    python tools/diagrams.py

The same pictures come out byte for byte, unless matplotlib or the bundled sample changes.
"""
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import torch
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from simclr_nb.augment import SimCLRAugment, two_views
from simclr_nb.core import generator
from simclr_nb.data import sample

FOLDER = Path(__file__).resolve().parent.parent / 'nbs'
ORANGE, BLUE, GREEN, GREY, PALE = '#D55E00', '#0072B2', '#009E73', '#5F6368', '#F1F3F4'


# the pieces of a drawing

def empty_figure(width, height):
    "Figure and axes in which one unit is one inch, white in a dark theme, too"
    figure = plt.figure(figsize=(width, height), facecolor='white')
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis('off')
    return figure, axes


def box(axes, x, y, width, height, text, colour=GREY, face=PALE, size=11, weight='normal'):
    "A rounded box with its centre at x, y"
    shape = FancyBboxPatch((x - width / 2, y - height / 2), width, height,
                           boxstyle='round,pad=0,rounding_size=.08', facecolor=face,
                           edgecolor=colour, linewidth=1.6)
    axes.add_patch(shape)
    axes.text(x, y, text, ha='center', va='center', fontsize=size, color='black',
              weight=weight, linespacing=1.35)


def arrow(axes, start, end, colour=GREY, bend=0., style='-|>', width=1.4):
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle=style, mutation_scale=12,
                                   connectionstyle=f'arc3,rad={bend}', color=colour,
                                   linewidth=width, shrinkA=0, shrinkB=0))


def picture(axes, image, x, y, side, colour=GREY): # image: (3, H, W) in 0..1
    axes.imshow(image.permute(1, 2, 0), extent=(x - side / 2, x + side / 2, y - side / 2,
                                                y + side / 2), zorder=2)
    axes.add_patch(plt.Rectangle((x - side / 2, y - side / 2), side, side, fill=False,
                                 edgecolor=colour, linewidth=1.6, zorder=3))


def save(figure, name):
    figure.savefig(FOLDER / f'diagram-{name}.svg', metadata=dict(Date=None))
    plt.close(figure)


# the pipeline

PLACES = dict(data=.8, augment=2.45, encoder=4.35, head=6.65, ntxent=8.85) # centres, inches
WORDS = dict(data='$N$ images', augment='$2N$ views', encoder='encoder $f$', head='head $g$',
             ntxent='loss')
INSIDE = dict(encoder='ResNet with\nGroupNorm', head='two linear\nlayers',
              ntxent='NT-Xent:\npartners\nnear, others\napart')
ROWS = (2.35, 1.25) # of the two images
HERE, ELSEWHERE = '#FFE3CF', PALE # faces of boxes


def rows_of_numbers(axes, x, label): # one per view, in the colour of its image
    for k, y in enumerate(ROWS):
        for n, shift in enumerate((.16, -.16)):
            axes.add_patch(plt.Rectangle((x - .2, y + shift - .1), .4, .2, facecolor='white',
                                         edgecolor=(BLUE, ORANGE)[k], linewidth=1.4))
            for column in (-.1, 0, .1):
                axes.plot((x + column, x + column), (y + shift - .1, y + shift + .1),
                          color=(BLUE, ORANGE)[k], linewidth=.7)
    axes.text(x, 3.05, label, ha='center', va='center', fontsize=12)


def images_and_views(axes):
    images = sample('train').images[[7, 4]]
    views = two_views(images, SimCLRAugment(), generator(3, 'diagram'))
    for k, y in enumerate(ROWS):
        picture(axes, images[k] / 255, PLACES['data'], y, .8)
        for n, shift in enumerate((-.36, .36)):
            picture(axes, views[k + 2 * n], PLACES['augment'] + shift, y, .62,
                    (BLUE, ORANGE)[k])
        arrow(axes, (1.27, y), (1.72, y))
        arrow(axes, (3.18, y), (3.62, y))


def pipeline(here=()):
    "From two images to the loss and back; the stages named in `here` are coloured"
    figure, axes = empty_figure(9.7, 3.5)
    images_and_views(axes)
    middle = sum(ROWS) / 2
    for name, words in INSIDE.items():
        face = HERE if name in here else ELSEWHERE
        colour = ORANGE if name in here else GREY
        box(axes, PLACES[name], middle, 1.3, 1.9, words, colour, face)
    for name, words in WORDS.items():
        marked = name in here
        axes.text(PLACES[name], 3.05, words, ha='center', va='center', fontsize=12,
                  color=ORANGE if marked else 'black', weight='bold' if marked else 'normal')
    rows_of_numbers(axes, 5.5, '$h$')
    rows_of_numbers(axes, 7.75, '$z$')
    for y in ROWS:
        for start, end in ((5.0, 5.28), (5.72, 5.98), (7.32, 7.53), (7.97, 8.18)):
            arrow(axes, (start, y), (end, y))
    marked = 'lars' in here
    box(axes, 5.5, .32, 2.5, .42, 'LARS moves the weights', ORANGE if marked else GREY,
        HERE if marked else ELSEWHERE)
    axes.plot((8.85, 8.85), (.82, .32), color=GREY, linewidth=1.4)
    arrow(axes, (8.85, .32), (6.77, .32))
    axes.text(7.82, .44, 'gradient', ha='center', fontsize=10, color=GREY)
    axes.plot((4.23, 3.95), (.32, .32), color=GREY, linewidth=1.4)
    arrow(axes, (3.95, .32), (3.95, .84))
    axes.plot((5.5, 5.5), (.54, .66), color=GREY, linewidth=1.4)
    axes.plot((5.5, 6.65), (.66, .66), color=GREY, linewidth=1.4)
    arrow(axes, (6.65, .66), (6.65, .84))
    return figure


# memory and time of the two passes

def ramp(axes, x, y, width, height, colour, falls=False):
    "Memory that fills, or empties, while a pass runs"
    corners = [(x, y), (x + width, y), (x + width * (not falls), y + height)]
    axes.add_patch(plt.Polygon(corners, facecolor=colour, edgecolor='white', linewidth=.8))


def time_and_memory(axes, x, y, title):
    arrow(axes, (x, y), (x + 4.15, y))
    arrow(axes, (x, y), (x, y + 1.75))
    axes.text(x + 4.15, y - .17, 'time', ha='right', va='center', fontsize=10, color=GREY)
    axes.text(x + .08, y + 1.72, 'memory', va='top', fontsize=10, color=GREY)
    axes.text(x, y + 2.05, title, fontsize=12)


def accumulation(chunks=4):
    "The same batch at once, and in micro-batches, as areas over time"
    figure, axes = empty_figure(9.7, 3.)
    forward, backward, full = .85, 1.7, 1.4 # widths and height for the whole batch
    time_and_memory(axes, .4, .5, 'the whole batch at once')
    ramp(axes, .45, .5, forward, full, BLUE)
    ramp(axes, .45 + forward, .5, backward, full, ORANGE, falls=True)
    x = 5.2
    time_and_memory(axes, x, .5, f'{chunks} micro-batches, two passes')
    x += .05
    for _ in range(chunks): # pass 1 keeps no graph
        axes.add_patch(plt.Rectangle((x, .5), forward / chunks, .07, facecolor=GREEN,
                                     edgecolor='white', linewidth=.8))
        x += forward / chunks
    axes.plot((x, x), (.5, 1.15), color='black', linewidth=1.2)
    axes.text(x, 1.2, 'loss of all $z$', ha='center', va='bottom', fontsize=10)
    for _ in range(chunks):
        ramp(axes, x, .5, forward / chunks, full / chunks, BLUE)
        x += forward / chunks
        ramp(axes, x, .5, backward / chunks, full / chunks, ORANGE, falls=True)
        x += backward / chunks
    for place, words, colour in ((6.7, 'forward, kept', BLUE), (8., 'backward', ORANGE),
                                 (5.3, 'forward, not kept', GREEN)):
        axes.text(place, .17, words, fontsize=10, color=colour)
    return figure


# which numbers a norm takes together

def cube(axes, x, y, title, is_taken, images=4, channels=6, pixels=5):
    "A batch as a block of numbers; is_taken(image, channel) says which share their statistics"
    cell, slant = .2, .12

    def face(corner, right, up, taken):
        ends = [corner, (corner[0] + right[0], corner[1] + right[1]),
                (corner[0] + right[0] + up[0], corner[1] + right[1] + up[1]),
                (corner[0] + up[0], corner[1] + up[1])]
        axes.add_patch(plt.Polygon(ends, facecolor=BLUE if taken else 'white',
                                   edgecolor=GREY, linewidth=.7))

    for channel in range(channels):
        for pixel in range(pixels): # the front shows the first image
            face((x + channel * cell, y + pixel * cell), (cell, 0), (0, cell),
                 is_taken(0, channel))
        for image in range(images): # the top shows all images
            corner = (x + channel * cell + image * slant, y + pixels * cell + image * slant)
            face(corner, (cell, 0), (slant, slant), is_taken(image, channel))
    for image in range(images): # the side shows the last channel
        for pixel in range(pixels):
            corner = (x + channels * cell + image * slant, y + pixel * cell + image * slant)
            face(corner, (slant, slant), (0, cell), is_taken(image, channels - 1))
    axes.text(x + channels * cell / 2 + .2, y - .62, title, ha='center', fontsize=12)


NORMS = { # which (image, channel) are taken together, with all their pixels
    'BatchNorm': lambda image, channel: channel == 5,
    'LayerNorm': lambda image, channel: image == 0,
    'InstanceNorm': lambda image, channel: image == 0 and channel == 5,
    'GroupNorm': lambda image, channel: image == 0 and channel >= 4,
}


def norms():
    figure, axes = empty_figure(9.7, 2.7)
    for k, (name, is_taken) in enumerate(NORMS.items()):
        cube(axes, .55 + 2.35 * k, .85, name, is_taken)
    axes.text(1.15, .62, 'channels', ha='center', fontsize=9, color=GREY)
    axes.text(.42, 1.35, 'pixels', rotation=90, va='center', ha='center', fontsize=9,
              color=GREY)
    axes.text(.6, 2.2, 'images', rotation=45, va='center', ha='center', fontsize=9, color=GREY)
    return figure


# who is compared with whom

def comparisons(axes, x, y, title, parts, images=8):
    "The matrix of similarities of 2N views; partners orange, negatives blue, the rest empty"
    views, side = 2 * images, 2.1
    colours = torch.ones(views, views, 3)
    for row in range(views):
        for column in range(views):
            same_part = row % images * parts // images == column % images * parts // images
            colour = 'white'
            if row == column:
                colour = GREY
            elif row % images == column % images:
                colour = ORANGE
            elif same_part:
                colour = '#9CC4E4'
            colours[row, column] = torch.tensor(to_rgb(colour))
    axes.imshow(colours, extent=(x, x + side, y, y + side), interpolation='nearest')
    for k in range(views + 1):
        line = side * k / views
        axes.plot((x, x + side), (y + line, y + line), color='#DADCE0', linewidth=.5)
        axes.plot((x + line, x + line), (y, y + side), color='#DADCE0', linewidth=.5)
    axes.text(x + side / 2, y - .28, title, ha='center', fontsize=12)


def similarities():
    figure, axes = empty_figure(9.7, 2.85)
    comparisons(axes, .5, .5, 'the whole batch, exact', 1)
    comparisons(axes, 3.25, .5, 'plain, 2 parts', 2)
    comparisons(axes, 6., .5, 'plain, 4 parts', 4)
    for y, words, colour in ((2.3, 'itself: left out', GREY), (1.95, 'partner', ORANGE),
                             (1.6, 'negative', '#0072B2'), (1.25, 'never met', '#80868B')):
        axes.text(8.3, y, words, fontsize=11, color=colour)
    return figure


# the signs of the site

def favicon():
    "Two views of one image close together on the circle, another far away"
    figure, axes = empty_figure(1, 1)
    figure.patch.set_alpha(0)
    axes.add_patch(plt.Circle((.5, .5), .36, fill=False, edgecolor=GREY, linewidth=5))
    for x, y, colour in ((.72, .79, ORANGE), (.84, .62, ORANGE), (.2, .3, BLUE)):
        axes.add_patch(plt.Circle((x, y), .13, facecolor=colour, zorder=2))
    return figure


def card():
    "The pipeline under the name, in the shape that previews of links have"
    figure = pipeline()
    figure.set_size_inches(12, 6.3)
    figure.axes[0].set_position((.05, .08, .9, .9 * 12 * 3.5 / 9.7 / 6.3))
    figure.text(.05, .82, 'simclr_nb', fontsize=44, weight='bold')
    figure.text(.05, .735, 'SimCLR with exact large-batch gradients, as notebooks',
                fontsize=21, color=GREY)
    return figure


PIPELINES = dict(pipeline=(), data=('data',), augment=('augment',), resnet=('encoder', 'head'),
                 ntxent=('ntxent',), lars=('lars',))
OTHERS = dict(accumulation=accumulation, norms=norms, similarities=similarities)


def main():
    matplotlib.rcParams['svg.hashsalt'] = 'simclr_nb'
    for name, here in PIPELINES.items():
        save(pipeline(here), name if name == 'pipeline' else f'pipeline-{name}')
    for name, draw in OTHERS.items():
        save(draw(), name)
    favicon().savefig(FOLDER / 'favicon.svg', metadata=dict(Date=None), transparent=True)
    card().savefig(FOLDER / 'card.png', dpi=100, metadata=dict(Software=None))


if __name__ == '__main__':
    main()
