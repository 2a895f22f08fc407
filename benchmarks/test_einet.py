"""One EM step of an EiNet: 128 images of 28×28 pixels, steps of 4 pixels."""

import pytest
import torch

from benchmarks.problems import images
from vqdistill.baselines.einet import zero_counts
from vqdistill.circuits.einet import EiNet
from vqdistill.circuits.gaussian import HALF_LOG_TWO_PI
from vqdistill.circuits.region_graph import poon_domingos

N_IMAGES = 128
SIZES = [4, 10, 20]


def graph():
    return poon_domingos((28, 28), 4)


class Autograd(torch.nn.Module):
    """The same circuit in log-space, layer by layer of the region graph, one einsum a layer.

    The expected counts of the E-step are the gradients of Σ_b log p(x_b), times the parameters.
    """

    def __init__(self, circuit: EiNet):
        super().__init__()
        self.circuit = circuit
        self.weights = torch.nn.ParameterList(layer.weights.clone() for layer in circuit.layers)
        self.mixing = torch.nn.ParameterList(layer.mixing.clone() for layer in circuit.layers)

    def of_leaves(self, x):
        leaves = self.circuit.leaves
        pixels = x[:, leaves.pixels][:, :, None]  # [B, leaves, 1, pixels]
        terms = -0.5 * ((pixels - leaves.means) / leaves.stds).square()
        values = (terms - leaves.stds.log() - HALF_LOG_TWO_PI).sum(3)  # [B, leaves, K]
        self.leaf_values = values.requires_grad_()
        return self.leaf_values

    def log_prob(self, x):
        regions = [self.of_leaves(x)]
        for layer, weights, mixing in zip(
            self.circuit.layers, self.weights, self.mixing, strict=True
        ):
            values = torch.cat(regions, 1)
            left, right = values[:, layer.left], values[:, layer.right]  # [B, partitions, K]
            high = [side.amax(2, keepdim=True) for side in (left, right)]
            products = [(s - h).exp() for s, h in zip((left, right), high, strict=True)]
            sums = torch.einsum("bpi,bpj,pkij->bpk", *products, weights).log() + sum(high)
            sums = sums.unflatten(1, (-1, layer.depth))  # [B, regions, d, K]
            top = sums.amax(2, keepdim=True)
            regions.append(((sums - top).exp() * mixing).sum(2).log() + top.squeeze(2))
        return regions[-1][:, 0, 0]

    def count(self, x):
        self.zero_grad()
        log_prob = self.log_prob(x)
        log_prob.sum().backward()
        flow = self.leaf_values.grad  # [B, leaves, K]
        pixels = x[:, self.circuit.leaves.pixels]
        moments = [torch.einsum("blk,blp->lkp", flow, part) for part in (pixels, pixels.square())]
        return log_prob, [w.grad for w in self.weights], moments


class UnitsFirst(Autograd):
    """The same with partitions last, the order of dimensions of the EiNet authors' code."""

    def __init__(self, circuit: EiNet):
        super().__init__(circuit)
        self.weights, self.mixing = (
            torch.nn.ParameterList(one.movedim(0, -1).contiguous() for one in of_layers)
            for of_layers in (
                [layer.weights.movedim(1, -1) for layer in circuit.layers],  # [i, j, k, p]
                [layer.mixing.movedim(2, 1) for layer in circuit.layers],  # [k, d, regions]
            )
        )

    def log_prob(self, x):
        regions = [self.of_leaves(x).mT]
        for layer, weights, mixing in zip(
            self.circuit.layers, self.weights, self.mixing, strict=True
        ):
            values = torch.cat(regions, 2)
            left, right = values[:, :, layer.left], values[:, :, layer.right]  # [B, K, partitions]
            high = [side.amax(1, keepdim=True) for side in (left, right)]
            products = [(s - h).exp() for s, h in zip((left, right), high, strict=True)]
            sums = torch.einsum("bip,bjp,ijkp->bkp", *products, weights).log() + sum(high)
            sums = sums.unflatten(2, (-1, layer.depth)).mT  # [B, K, d, regions]
            top = sums.amax(2, keepdim=True)
            regions.append(((sums - top).exp() * mixing).sum(2).log() + top.squeeze(2))
        return regions[-1][:, 0, 0]

    def count(self, x):
        log_prob, weights, moments = super().count(x)
        return log_prob, [w.movedim(-1, 0).movedim(-1, 1) for w in weights], moments


PEERS = {"einsum and autograd": Autograd, "units first": UnitsFirst}


def circuit(size):
    torch.manual_seed(size)
    return EiNet(graph(), size)


@pytest.mark.parametrize("size", SIZES)
def test_vqdistill(timed, size):
    model, x = circuit(size), images(N_IMAGES)
    timed(lambda: model.count(x, zero_counts(model)), "EiNet", "vqdistill", size)


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("size", SIZES)
def test_autograd(timed, size, peer):
    model, x = circuit(size), images(N_IMAGES)
    plain = PEERS[peer](model)
    log_prob, weights, moments = timed(lambda: plain.count(x), "EiNet", peer, size)
    counts = zero_counts(model)
    torch.testing.assert_close(model.count(x, counts).float(), log_prob, rtol=1e-4, atol=0.1)
    for ours, theirs in zip(counts.weights, weights, strict=True):
        torch.testing.assert_close(ours, theirs.flatten(2), rtol=1e-2, atol=1e-2)
    found = counts.leaves.moments[:, :, 1].float()
    torch.testing.assert_close(found, moments[0], rtol=1e-2, atol=1e-2)
