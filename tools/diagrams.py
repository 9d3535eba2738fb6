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
LIGHT_BLUE = '#9CC4E4'


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


def arrow(axes, start, end, colour=GREY, bend=0., style='-|>', width=1.4, size=12):
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle=style, mutation_scale=size,
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


# the pipeline, with letters that can still be read on a telephone

PIPELINE = 7., 3.5 # inches
PLACES = dict(data=.55, augment=1.68, encoder=3.12, head=4.76, ntxent=6.4) # centres
WORDS = dict(data='$N$ images', augment='$2N$ views', encoder='encoder $f$', head='head $g$',
             ntxent='loss')
INSIDE = dict(encoder='ResNet\nwith\nGroup-\nNorm', head='Linear,\nReLU,\nLinear',
              ntxent='NT-Xent:\npartners\nnear and\nothers\napart')
ROWS = (2.35, 1.25) # of the two images
HERE, ELSEWHERE = '#FFE3CF', PALE # faces of boxes


def rows_of_numbers(axes, x, label): # one per view, in the colour of its image
    for k, y in enumerate(ROWS):
        for n, shift in enumerate((.16, -.16)):
            axes.add_patch(plt.Rectangle((x - .16, y + shift - .1), .32, .2,
                                         facecolor='white', edgecolor=(BLUE, ORANGE)[k],
                                         linewidth=1.4))
            for column in (-.08, 0, .08):
                axes.plot((x + column, x + column), (y + shift - .1, y + shift + .1),
                          color=(BLUE, ORANGE)[k], linewidth=.7)
    axes.text(x, 3.15, label, ha='center', va='center', fontsize=14)


def images_and_views(axes):
    images = sample('train').images[[7, 4]]
    views = two_views(images, SimCLRAugment(), generator(3, 'diagram'))
    for k, y in enumerate(ROWS):
        picture(axes, images[k] / 255, PLACES['data'], y, .66)
        for n, shift in enumerate((-.29, .29)):
            picture(axes, views[k + 2 * n], PLACES['augment'] + shift, y, .54,
                    (BLUE, ORANGE)[k])
        arrow(axes, (.9, y), (1.1, y))
        arrow(axes, (2.27, y), (2.61, y))


def pipeline(here=()):
    "From two images to the loss and back; the stages named in `here` are coloured"
    figure, axes = empty_figure(*PIPELINE)
    images_and_views(axes)
    middle = sum(ROWS) / 2
    for name, words in INSIDE.items():
        face = HERE if name in here else ELSEWHERE
        colour = ORANGE if name in here else GREY
        box(axes, PLACES[name], middle, 1., 1.9, words, colour, face, size=13)
    for name, words in WORDS.items():
        marked = name in here
        axes.text(PLACES[name], 3.15, words, ha='center', va='center', fontsize=14,
                  color=ORANGE if marked else 'black', weight='bold' if marked else 'normal')
    rows_of_numbers(axes, 3.94, '$h$')
    rows_of_numbers(axes, 5.58, '$z$')
    for y in ROWS:
        for end in (3.77, 4.25, 5.41, 5.89):
            arrow(axes, (end - .14, y), (end, y), size=9)
    below, edge = .28, middle - .95 # of the box of LARS, and the lower one of the others
    marked = 'lars' in here
    box(axes, 3.94, below, 2.5, .44, 'LARS moves the weights', ORANGE if marked else GREY,
        HERE if marked else ELSEWHERE, size=13)
    axes.plot((6.4, 6.4), (edge, below), color=GREY, linewidth=1.4)
    arrow(axes, (6.4, below), (5.2, below))
    axes.text(5.8, below + .1, 'gradient', ha='center', fontsize=12, color=GREY)
    for x in (3.12, 4.76):
        arrow(axes, (x, below + .22), (x, edge))
    return figure


# memory and time of the two passes

def ramp(axes, x, y, width, height, colour, falls=False):
    "Memory that fills, or empties, while a pass runs"
    corners = [(x, y), (x + width, y), (x + width * (not falls), y + height)]
    axes.add_patch(plt.Polygon(corners, facecolor=colour, edgecolor='white', linewidth=.8))


def time_and_memory(axes, x, y, title):
    arrow(axes, (x, y), (x + 3.1, y))
    arrow(axes, (x, y), (x, y + 1.75))
    axes.text(x + 3.1, y - .17, 'time', ha='right', va='center', fontsize=12, color=GREY)
    axes.text(x + .08, y + 1.75, 'memory', va='top', fontsize=12, color=GREY)
    axes.text(x, y + 2.05, title, fontsize=13)


def accumulation(chunks=4):
    "The same batch at once, and in micro-batches, as areas over time"
    figure, axes = empty_figure(7., 3.2)
    forward, backward, full = .66, 1.32, 1.4 # widths and height for the whole batch
    time_and_memory(axes, .2, .7, 'the whole batch at once')
    ramp(axes, .25, .7, forward, full, BLUE)
    ramp(axes, .25 + forward, .7, backward, full, ORANGE, falls=True)
    x = 3.7
    time_and_memory(axes, x, .7, f'{chunks} micro-batches, two passes')
    x += .05
    for _ in range(chunks): # pass 1 keeps no graph
        axes.add_patch(plt.Rectangle((x, .7), forward / chunks, .07, facecolor=GREEN,
                                     edgecolor='white', linewidth=.8))
        x += forward / chunks
    axes.plot((x, x), (.7, 1.35), color='black', linewidth=1.2)
    axes.text(x, 1.4, 'loss of all $z$', ha='center', va='bottom', fontsize=12)
    for _ in range(chunks):
        ramp(axes, x, .7, forward / chunks, full / chunks, BLUE)
        x += forward / chunks
        ramp(axes, x, .7, backward / chunks, full / chunks, ORANGE, falls=True)
        x += backward / chunks
    for place, words, colour in ((.2, 'forward, not kept', GREEN),
                                 (2.6, 'forward, kept', BLUE), (4.6, 'backward', ORANGE)):
        axes.text(place, .14, words, fontsize=13, color=colour)
    return figure


# which numbers a norm takes together

def cube(axes, x, y, title, is_taken, images=4, channels=6, pixels=5):
    "A batch as a block of numbers; is_taken(image, channel) says which share their statistics"
    cell, slant = .18, .08

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
    axes.text(x + channels * cell / 2 + .15, y - .62, title, ha='center', fontsize=13)


NORMS = { # which (image, channel) are taken together, with all their pixels
    'BatchNorm': lambda image, channel: channel == 5,
    'LayerNorm': lambda image, channel: image == 0,
    'InstanceNorm': lambda image, channel: image == 0 and channel == 5,
    'GroupNorm': lambda image, channel: image == 0 and channel >= 4,
}


def norms():
    figure, axes = empty_figure(7., 2.4)
    for k, (name, is_taken) in enumerate(NORMS.items()):
        cube(axes, .45 + 1.68 * k, .8, name, is_taken)
    axes.text(.99, .55, 'channels', ha='center', fontsize=12, color=GREY)
    axes.text(.32, 1.25, 'pixels', rotation=90, va='center', ha='center', fontsize=12,
              color=GREY)
    axes.text(.42, 2.02, 'images', rotation=45, va='center', ha='center', fontsize=12,
              color=GREY)
    return figure


# who is compared with whom

def comparisons(axes, x, y, title, parts, images=8):
    "The matrix of similarities of 2N views; partners orange, negatives blue, the rest empty"
    views, side = 2 * images, 2.05
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
                colour = LIGHT_BLUE
            colours[row, column] = torch.tensor(to_rgb(colour))
    axes.imshow(colours, extent=(x, x + side, y, y + side), interpolation='nearest')
    for k in range(views + 1):
        line = side * k / views
        axes.plot((x, x + side), (y + line, y + line), color='#DADCE0', linewidth=.5)
        axes.plot((x + line, x + line), (y, y + side), color='#DADCE0', linewidth=.5)
    axes.text(x + side / 2, y + side + .12, title, ha='center', fontsize=13)


def similarities():
    figure, axes = empty_figure(7., 2.95)
    for k, (title, parts) in enumerate((('whole batch, exact', 1), ('plain, 2 parts', 2),
                                        ('plain, 4 parts', 4))):
        comparisons(axes, .15 + 2.32 * k, .5, title, parts)
    for x, words, face in ((.15, 'itself: left out', GREY), (2.2, 'partner', ORANGE),
                           (3.6, 'negative', LIGHT_BLUE), (5.15, 'never met', 'white')):
        axes.add_patch(plt.Rectangle((x, .14), .2, .2, facecolor=face, edgecolor=GREY))
        axes.text(x + .28, .15, words, fontsize=13)
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
    width, height = PIPELINE
    scale = 4.1 / height # inches of the card that the drawing takes
    figure.axes[0].set_position((.5 - scale * width / 24, .04, scale * width / 12,
                                  scale * height / 6.3))
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
