"""A training step of a quad-tree, of 128 images of 28×28 pixels, and queries of 1,000 images."""

from types import SimpleNamespace

import pytest
import torch

from benchmarks.problems import BATCH, D, half_masks, images, seeded
from vqdistill.baselines import einet, quad_tree
from vqdistill.circuits.einet import EiNet
from vqdistill.circuits.gaussian import log_density
from vqdistill.circuits.quad_tree import QuadTree
from vqdistill.circuits.region_graph import Layer

SIZES = [4, 8, 16]
N_QUERIES = 1000


def circuit(size, n_classes=1, class_levels=0):
    torch.manual_seed(size)
    model = QuadTree((28, 28), size, n_classes, class_levels)
    quad_tree.begin(model, images(2000, 1), seeded())
    return model


class Autograd(torch.nn.Module):
    """The same circuit in log-space, with softmax weights, layer by layer: one einsum a layer."""

    def __init__(self, tree):
        super().__init__()
        self.tree = tree
        self.means = torch.nn.Parameter(tree.leaves.means.squeeze(2).clone())  # [D, K]
        self.log_stds = torch.nn.Parameter(tree.leaves.stds.squeeze(2).log())
        weights = [layer.weights[:, 0].log() for layer in tree.layers]
        self.logits = torch.nn.ParameterList([*weights, tree.root[0].log()])

    def log_prob(self, x):
        pixels = x[:, self.tree.leaves.pixels[:, 0], None]  # [B, D, 1]
        values = log_density(pixels, self.means, self.log_stds)  # [B, D, K]
        for layer, logits in zip(self.tree.layers, self.logits, strict=False):
            top = values.amax(2, keepdim=True)
            sums = torch.einsum("brj,rkj->brk", (values - top).exp(), logits.softmax(2)).log() + top
            shape = (len(x), layer.n_regions, sums.shape[2])
            values = sums.new_zeros(shape).index_add(1, layer.parents, sums)
        return (values[:, 0] + self.logits[-1].log_softmax(0)).logsumexp(1)


def einet_of_halves(tree):
    """An EiNet of the same regions, each of which is cut into an upper and a lower part, and these
    into a left and a right one: K³ weights a cut."""
    layers, n = [], tree.n_variables
    regions = list(range(n))  # the number of each child
    for layer in tree.layers:
        children = {}
        for child, parent in enumerate(layer.parents.tolist()):
            children.setdefault(parent, []).append(regions[child])
        while any(len(own) > 1 for own in children.values()):
            start, pairs = n, []
            for own in children.values():
                for _ in range(len(own) // 2):
                    pairs.append((own.pop(0), own.pop(0)))
                    own.append(n)
                    n += 1
            left, right = torch.tensor(pairs).T[:, :, None].contiguous()
            layers.append(Layer(start, left, right))
        regions = [children[parent][0] for parent in sorted(children)]
    graph = SimpleNamespace(
        pixels=tree.leaves.pixels, image_shape=(28, 28), pixels_per_step=1, layers=layers,
        n_regions=n, n_partitions=n - tree.n_variables,
    )  # fmt: skip
    model = EiNet(graph, tree.size)
    model.leaves.load_state_dict(tree.leaves.state_dict())
    return model


def adam_step(model, x):
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)

    def step():
        optimiser.zero_grad()
        (-model.log_prob(x).mean()).backward()
        optimiser.step()

    return step


@pytest.mark.parametrize("size", SIZES)
def test_vqdistill(timed, size):
    model, x = circuit(size), images(BATCH)
    counts = model.zero_counts()

    def step():
        model.count(x, counts)
        quad_tree.update(model, counts, 0.01)

    timed(step, "quad-tree", "vqdistill", size)


@pytest.mark.parametrize("size", SIZES)
def test_autograd_and_adam(timed, size):
    tree, x = circuit(size), images(BATCH)
    plain = Autograd(tree)
    expected = tree.log_prob(x).float()
    torch.testing.assert_close(plain.log_prob(x), expected, rtol=1e-4, atol=0.1)
    timed(adam_step(plain, x), "quad-tree", "autograd and Adam", size)


@pytest.mark.parametrize("size", SIZES)
def test_layers_of_the_einet(timed, size):
    model, x = einet_of_halves(circuit(size)), images(BATCH)
    counts = einet.zero_counts(model)

    def step():
        model.count(x, counts)
        einet.update(model, counts, 0.05)

    timed(step, "quad-tree", "layers of the EiNet", size)


QUERIES = {
    "log p(x)": lambda model, x, mask: model.log_prob(x),
    "log p(x_o), a half hidden": lambda model, x, mask: model.log_prob(x, mask),
    "log P(grey levels)": lambda model, x, mask: model.log_prob_discrete((256 * x).byte()),
    "log p(c | x_o)": lambda model, x, mask: model.class_log_prob(x, mask),
    "sample": lambda model, x, mask: model.sample(len(x), seeded()),
    "conditional sample": lambda model, x, mask: model.conditional_sample(x, mask, seeded()),
    "conditional mean": lambda model, x, mask: model.conditional_mean(x, mask),
    "conditional deviation": lambda model, x, mask: model.conditional_std(x, mask),
    "max-product mode": lambda model, x, mask: model.conditional_mode(x, mask),
}


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("size", SIZES)
def test_queries(timed, size, query):
    model, x = circuit(size, n_classes=10, class_levels=2), images(N_QUERIES)
    model.levels = 256
    assert x.shape == (N_QUERIES, D)
    timed(lambda: QUERIES[query](model, x, half_masks()), "queries", query, size)
