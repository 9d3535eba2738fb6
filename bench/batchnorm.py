"""What a BatchNorm with the statistics of few images does to SimCLR, beside a GroupNorm: tiny
ResNets trained on the bundled sample, with both views of an image in the same part of the
batch, and with the two kept apart. Then what GroupNorm costs, with other groups and with weight
standardisation, and a BatchNorm in the projection head; and which learning rate each norm likes
best, by images held out of the training images.

    OMP_NUM_THREADS=1 python bench/batchnorm.py         # 15 hours of one core; batchnorm.json
    OMP_NUM_THREADS=1 python bench/batchnorm.py cost    # of a step with each norm, minutes
    OMP_NUM_THREADS=1 python bench/batchnorm.py untrained    # networks before their first step
    OMP_NUM_THREADS=1 python bench/batchnorm.py 'held out'    # only rows that begin so
    python bench/batchnorm.py row 'BatchNorm 2 together' 7    # one row with a seed of yours

Every table is made with two seeds before any gains more, and the rows named in THREE_SEEDS
stop at three, the others have five. What is finished is kept in batchnorm.json and not done
again, so the script can be stopped at any time.
"""
import statistics
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import nn

from long_runs import accuracies, keep_result, read_results
from simclr_nb.augment import Views
from simclr_nb.core import describe_machine, generator, keep_freed_memory
from simclr_nb.data import hold_out, sample
from simclr_nb.ntxent import nt_xent
from simclr_nb.resnet import build_encoder, init_weights
from simclr_nb.runs import TrainConfig
from simclr_nb.train import prepare, pretrain, step_views, update

HERE = Path(__file__).resolve().parent
RESULTS = HERE / 'batchnorm.json'
SETTINGS = TrainConfig(batch=128, epochs=8, temperature=.1, lr=2., precision='float32',
                       device='cpu', compile=False)
SEEDS = ((0, 1), (2,), (3, 4)) # of every table, before the next ones
THREE_SEEDS = ('16 groups', '32 groups', 'in the head', 'learnt scale', 'crossed')
RATES = (1., 2., 4., 8.) # base learning rates of LARS
OWN_RATE = 4. # that held-out images chose for 8 groups with standardised weights
IMAGES_IN_PART = (2, 4, 8, 16, 32, 64, 128)


# BatchNorm over parts of a batch

class PartNorm(nn.BatchNorm2d):
    """BatchNorm whose statistics are those of a part of the batch, for all parts at once

    The rows of a part are `parts` apart: rows 0, P, 2P, .. are the first part's. So a view of
    the same memory, with P times the channels, has the parts as channels."""
    parts = 1

    def forward(self, x): # (rows, C, H, W)
        if not self.training or self.parts == 1:
            return super().forward(x)
        rows, _, height, width = x.shape
        x = x.reshape(rows // self.parts, -1, height, width) # (rows of a part, P C, H, W)
        weight, bias = self.weight.repeat(self.parts), self.bias.repeat(self.parts)
        x = F.batch_norm(x, None, None, weight, bias, training=True, eps=self.eps)
        return x.view(rows, -1, height, width)


def part_order(rows, images_in_part, how):
    """The order of the 2N views that makes every P-th row one part's, and P

    together: a part holds both views of its images. apart: it holds one view each of twice as
    many images, consecutive rows of the batch, and another part holds all their partners.
    crossed: the same, but the partners are scattered over many parts."""
    views_in_part = 2 * images_in_part
    parts, index = rows // views_in_part, torch.arange(rows)
    if how == 'together':
        order = index.view(2, parts, images_in_part).transpose(1, 2)
    elif how == 'apart':
        order = index.view(parts, views_in_part).T
    else:
        first, second = index.chunk(2)
        scattered = second.view(views_in_part, parts // 2).T
        order = torch.cat([first.view(parts // 2, views_in_part), scattered]).T
    return order.reshape(-1), parts


class InParts(nn.Module):
    "An encoder whose norms see, in train mode, the views of one part of the batch at a time"
    def __init__(self, encoder, images_in_part, how='together'):
        super().__init__()
        self.encoder, self.num_features = encoder, encoder.num_features
        self.images_in_part, self.how = images_in_part, how

    def forward(self, views): # in train mode all 2N views of a batch, rows i and i+N a pair
        if not self.training:
            return self.encoder(views)
        order, parts = part_order(len(views), self.images_in_part, self.how)
        for module in self.encoder.modules():
            if isinstance(module, PartNorm):
                module.parts = parts
        h = self.encoder(views[order])
        return torch.empty_like(h).index_copy(0, order, h)


def batch_norms(module):
    "Replace every BatchNorm inside a module by a `PartNorm`"
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, PartNorm(child.num_features))
        else:
            batch_norms(child)


@torch.no_grad()
def estimate_statistics(encoder, batches):
    "Running statistics of every norm as the mean over batches of views or plain images"
    norms = [module for module in encoder.modules() if isinstance(module, PartNorm)]
    for norm in norms:
        norm.parts, norm.momentum = 1, None # None: the plain mean of all batches
        norm.reset_running_stats()
    encoder.train()
    for batch in batches:
        encoder(batch)
    encoder.eval()


class HeadNorm(nn.Module):
    """BatchNorm of the hidden layer of a projection head, over parts of a batch that hold both
    views of their images; in the place of a LayerNorm, whose scale and shift it takes over"""
    def __init__(self, layer_norm, images_in_part):
        super().__init__()
        self.weight, self.bias = layer_norm.weight, layer_norm.bias
        self.images_in_part = images_in_part

    def forward(self, x): # (2N, F), rows i and i+N a pair
        rows, features = x.shape
        images_in_part = self.images_in_part if self.training else rows // 2
        order, parts = part_order(rows, images_in_part, 'together')
        by_part = x[order].view(-1, parts * features) # (rows of a part, P F)
        weight, bias = self.weight.repeat(parts), self.bias.repeat(parts)
        by_part = F.batch_norm(by_part, None, None, weight, bias, training=True)
        return torch.empty_like(x).index_copy(0, order, by_part.view(rows, features))


# what is measured

def views_of(images, step, config): # of one batch
    augment = config.augmentation()
    pixels = images.images[step * config.batch:][:config.batch]
    random = generator(config.seed, 'measures', step)
    draws = augment.draw(2 * len(pixels), random, hw=pixels.shape[-2:])
    return Views(pixels, draws, augment)[:]


def same_part_auc(z, images_in_part):
    """How well the cosine of two views of different images tells whether they were normalised
    together: area under the ROC curve, 0.5 if it tells nothing"""
    z = F.normalize(z, dim=1)
    image = torch.arange(len(z)) % (len(z) // 2)
    part = image // images_in_part
    different = (image[:, None] != image).triu(1)
    same_part = (part[:, None] == part)[different]
    if same_part.all():
        return None
    return roc_auc_score(same_part.numpy(), (z @ z.T)[different].numpy())


@torch.no_grad()
def losses_in_parts(model, images, config, batches=8):
    """Loss and top-1 of the same views with partners together, apart and crossed, and what
    parts give away when they are together; means over batches of training views"""
    wrapped, rows = model.encoder, []
    ways = ['together']
    if 2 * wrapped.images_in_part <= config.batch:
        ways += ['apart', 'crossed']
    model.train()
    for step in range(batches):
        views = views_of(images, step, config)
        row = {}
        for how in ways:
            wrapped.how = how
            z = model(views)
            loss, measures = nt_xent(z, config.temperature, stats=True)
            row |= {f'loss {how}': loss.item(), f'top1 {how}': float(measures['top1'])}
            if how == 'together':
                row['auc'] = same_part_auc(z, wrapped.images_in_part)
        rows.append(row)
    model.eval()
    return {name: mean([row[name] for row in rows]) for name in rows[0]}


@torch.no_grad()
def auc_in_parts(model, images, config, batches=8):
    "`same_part_auc` of the embeddings when norms see parts of so many images"
    wrapped, found = model.encoder, {}
    model.train()
    for count in IMAGES_IN_PART[:-1]:
        wrapped.images_in_part, wrapped.how = count, 'together'
        found[str(count)] = mean([same_part_auc(model(views_of(images, step, config)), count)
                                  for step in range(batches)])
    model.eval()
    return found


def mean(values):
    return None if None in values else sum(values) / len(values)


@torch.no_grad()
def test_loss(model, test, config, batches=8):
    "Loss in eval mode on views of test images"
    model.eval()
    return mean([nt_xent(model(views_of(test, step, config)), config.temperature).item()
                 for step in range(min(batches, len(test) // config.batch))])


# the runs

def new_encoder(seed, **settings):
    return init_weights(build_encoder('tiny', **settings), generator(seed, 'weights'))


def learn_scales(encoder):
    "A learnt scale, 1 at first, behind every convolution, for each channel that comes out"
    for convolution in encoder.modules():
        if isinstance(convolution, nn.Conv2d):
            convolution.scale = nn.Parameter(torch.ones(convolution.out_channels))
            convolution.register_forward_hook(lambda convolution, _, maps:
                                              maps * convolution.scale.view(-1, 1, 1))
    return encoder


def batch_norm_run(seed, images_in_part, how, train, test, epochs, lr=SETTINGS.lr,
                   norm='batch'):
    encoder = new_encoder(seed, norm=norm)
    batch_norms(encoder)
    config = replace(SETTINGS, seed=seed, epochs=epochs, lr=lr)
    wrapped = InParts(encoder, images_in_part, how)
    model, history = pretrain(config, train, progress=False, encoder=wrapped)
    figures = training_figures(history, train, config)
    figures |= losses_in_parts(model, train, config)
    if images_in_part == config.batch: # what a network shows that never had parts
        figures['auc in parts'] = auc_in_parts(model, train, config)
    # each measure with the statistics of such images as it looks at
    estimate_statistics(wrapped.encoder, [views_of(train, step, config) for step in range(16)])
    figures['test loss'] = test_loss(model, test, config)
    estimate_statistics(wrapped.encoder, [part / 255 for part in train.images.split(500)])
    return figures | accuracies(wrapped.encoder, train, test)


def group_norm_run(seed, train, test, epochs, lr=SETTINGS.lr, scales=False, **settings):
    config = replace(SETTINGS, seed=seed, epochs=epochs, lr=lr)
    encoder = new_encoder(seed, **settings)
    if scales:
        learn_scales(encoder)
    model, history = pretrain(config, train, progress=False, encoder=encoder)
    figures = training_figures(history, train, config)
    figures['test loss'] = test_loss(model, test, config)
    return figures | accuracies(encoder, train, test)


def untrained_figures(train, test, seeds=range(5)):
    "Accuracies of networks before their first step, by norm and seed"
    figures = {}
    for name, settings in (('GroupNorm', dict(groups=8)), ('BatchNorm', dict(norm='batch'))):
        for seed in seeds:
            encoder = new_encoder(seed, **settings).eval()
            if name == 'BatchNorm':
                batch_norms(encoder)
                estimate_statistics(encoder, [part / 255 for part in train.images.split(500)])
            figures[f'{name}, seed {seed}'] = accuracies(encoder, train, test)
    return figures


def head_run(seed, images_in_part, groups, head_norm, train, test, epochs):
    "A GroupNorm encoder with a norm in its head: BatchNorm, or LayerNorm (None images)"
    config = replace(SETTINGS, seed=seed, epochs=epochs, head_norm=head_norm)
    training = prepare(config, train, encoder=new_encoder(seed, groups=groups))
    head = training.model.head
    if images_in_part:
        head[1] = HeadNorm(head[1], images_in_part)
    history = [update(training, step_views(training, step), step)
               for step in range(training.total_steps)]
    model = training.model.eval()
    figures = training_figures(history, train, config)
    # each batch of test views with its own statistics in the head
    figures['test loss'] = test_loss(model, test, config)
    return figures | accuracies(model.encoder, train, test)


def training_figures(history, train, config): # means of the last epoch
    last = history[-(len(train) // config.batch):]
    return {'training loss': mean([row['loss'] for row in last]),
            'training top1': mean([row['top1'] for row in last]), 'steps': len(history)}


def leak_rows(): # (name, function, its settings)
    for count in IMAGES_IN_PART:
        for how in ('together', 'apart', 'crossed'):
            possible = how == 'together' or 2 * count <= SETTINGS.batch
            if possible and (how != 'crossed' or count < 16):
                yield (f'BatchNorm {count} {how}', batch_norm_run,
                       dict(norm='batch', images_in_part=count, how=how))
    for groups in (32, 8):
        yield f'GroupNorm, {groups} groups', group_norm_run, dict(groups=groups)


def price_rows():
    for groups in (8, 2, 32, 1, 4, 16):
        yield (f'GroupNorm, {groups} groups, weights standardised', group_norm_run,
               dict(groups=groups, weight_standardised=True))
        if groups not in (8, 32): # those are in the table before
            yield f'GroupNorm, {groups} groups', group_norm_run, dict(groups=groups)
    yield ('GroupNorm, 2 groups, weights standardised, learnt scale', group_norm_run,
           dict(groups=2, weight_standardised=True, scales=True))


def held_out(run):
    "The same run with four fifths of the training images, judged by the others"
    def with_held_out_images(seed, train, test, epochs, **settings):
        train, test = hold_out(train)
        return run(seed, train=train, test=test, epochs=epochs, **settings)
    return with_held_out_images


def rate_rows():
    "Is each norm at its best with the learning rate that all of them have here?"
    for rate in RATES:
        yield (f'held out, BatchNorm 128 together, rate {rate}', held_out(batch_norm_run),
               dict(norm='batch', images_in_part=128, how='together', lr=rate))
        for groups, standardised in ((8, False), (8, True), (2, True)):
            kind = ', weights standardised' if standardised else ''
            yield (f'held out, GroupNorm, {groups} groups{kind}, rate {rate}',
                   held_out(group_norm_run),
                   dict(groups=groups, weight_standardised=standardised, lr=rate))


def own_rate_rows():
    "The norm whose best rate is another, with that rate, on test images"
    yield (f'GroupNorm, 8 groups, weights standardised, rate {OWN_RATE}', group_norm_run,
           dict(groups=8, weight_standardised=True, lr=OWN_RATE))


def head_rows():
    for count in (2, 8, 32, 128):
        yield (f'BatchNorm {count} in the head', head_run,
               dict(images_in_part=count, groups=8, head_norm=True))
    yield ('LayerNorm in the head', head_run,
           dict(images_in_part=None, groups=8, head_norm=True))


TABLES = (price_rows, leak_rows, head_rows)


def wanted_runs():
    "(seed, name, function, its settings), in the order of their making"
    order = [(seeds, table) for seeds in SEEDS for table in TABLES]
    for seeds, table in (*order, ((0, 1), rate_rows), (range(5), own_rate_rows)):
        for seed in seeds:
            for name, run, settings in table():
                if seed < 3 or not any(part in name for part in THREE_SEEDS):
                    yield seed, name, run, settings


def recorded(settings, seed, epochs):
    "All settings of a run, for the record"
    return asdict(replace(SETTINGS, seed=seed, epochs=epochs)) | settings


def filled_in(stored): # settings that came after these were stored had their defaults
    return asdict(TrainConfig()) | stored


def cost_of_steps(rounds=24):
    """Processor seconds of an update (forward, backward, LARS) with a norm, over those of
    another in the same round, on the same views: the median and the middle half of the rounds

    It is weight standardisation over none, with so many groups, and BatchNorm over 8 groups."""
    norms = {'BatchNorm': dict(norm='batch')}
    pairs = {'BatchNorm': ('BatchNorm', '8 groups')}
    for groups in (2, 8, 32):
        plain, standardised = f'{groups} groups', f'{groups} groups, weights standardised'
        norms[plain] = dict(groups=groups)
        norms[standardised] = dict(groups=groups, weight_standardised=True)
        pairs[standardised] = standardised, plain
    train = sample('train')
    trainings = {name: prepare(SETTINGS, train, encoder=new_encoder(0, **settings))
                 for name, settings in norms.items()}
    ratios = {name: [] for name in pairs}
    for step in range(rounds + 2):
        views, seconds = step_views(trainings['BatchNorm'], step), {}
        for name, training in trainings.items():
            start = time.process_time()
            update(training, views, step)
            seconds[name] = time.process_time() - start
        if step >= 2: # the first are for warming up
            for name, (first, second) in pairs.items():
                ratios[name].append(seconds[first] / seconds[second])
    return {name: dict(zip(('low', 'ratio', 'high'), statistics.quantiles(found)))
            for name, found in ratios.items()}


def one_row(wanted, seed):
    "The figures of one row with any seed, five minutes of one core; nothing is written"
    rows = {name: (run, settings) for table in (*TABLES, rate_rows, own_rate_rows)
            for name, run, settings in table()}
    if wanted not in rows:
        sys.exit(f'no row {wanted!r}; there are: ' + '; '.join(rows))
    run, settings = rows[wanted]
    return run(seed, train=sample('train'), test=sample('test'), epochs=SETTINGS.epochs,
               **settings)


def main(words):
    keep_freed_memory()
    if words == ['cost']:
        costs = dict(cost_of_steps(), on=describe_machine(torch.device('cpu')))
        print(costs)
        keep_result(RESULTS, ['cost of a step'], costs)
        return
    if words == ['untrained']:
        figures = untrained_figures(sample('train'), sample('test'))
        keep_result(RESULTS, ['untrained'],
                    figures | dict(on=describe_machine(torch.device('cpu'))))
        return
    if words[:1] == ['row']:
        print(one_row(words[1], int(words[2])))
        return
    few = '--few' in words
    names = [word for word in words if word != '--few']
    train, test = sample('train'), sample('test')
    epochs = SETTINGS.epochs
    if few: # for a look at whether it runs; nothing is written
        train, test, epochs = train[:1280], test[:1280], 1
    for seed, name, run, settings in wanted_runs():
        if names and not name.startswith(tuple(names)):
            continue
        key = f'{name}, seed {seed}'
        made_with = recorded(settings, seed, epochs)
        if key in read_results(RESULTS) and not few:
            if filled_in(read_results(RESULTS)[key]['settings']) != made_with:
                sys.exit(f'{key} in {RESULTS} was made with other settings')
            continue
        start = time.perf_counter()
        figures = run(seed, train=train, test=test, epochs=epochs, **settings)
        figures['seconds'] = round(time.perf_counter() - start)
        print(key, figures, flush=True)
        if few:
            continue
        machine = describe_machine(torch.device('cpu'))
        figures |= dict(seed=seed, settings=made_with, on=machine)
        keep_result(RESULTS, [key], figures)


if __name__ == '__main__':
    main(sys.argv[1:])
