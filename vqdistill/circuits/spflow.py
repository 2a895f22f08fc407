"""Circuits to and from SPFlow 1.1 (https://pypi.org/project/spflow), a general circuit library.

An exported circuit is an SPFlow module in float64 with the same parameters: its own queries,
structural operations and learning work on it. SPFlow marks hidden pixels by NaN.

    mixture   Sum over one Product of Normal leaves with N channels
    EiNet     a leaf region is a Product of Normals with K channels, a partition an EinsumLayer,
              a region with several partitions an ElementwiseSum of them

Needs the extra `spflow`: pip install vqdistill[spflow].
"""

import math

import torch
from spflow.modules.einsum import EinsumLayer
from spflow.modules.leaves import Normal
from spflow.modules.module import Module
from spflow.modules.ops.cat import Cat
from spflow.modules.products import Product
from spflow.modules.sums import ElementwiseSum, Sum
from torch import Tensor

from vqdistill.circuits.base import Circuit
from vqdistill.circuits.einet import EiNet
from vqdistill.circuits.mixture import Mixture, StreamedMixture
from vqdistill.circuits.region_graph import RegionGraph, poon_domingos
from vqdistill.errors import InputError


def to_spflow(circuit: Circuit) -> Module:
    """A mixture or an EiNet as a module of SPFlow, over variables 0 … D − 1.

    Raises InputError for another kind of circuit.
    """
    with torch.random.fork_rng(devices=[]):  # SPFlow draws weights that are then replaced
        if isinstance(circuit, StreamedMixture):
            return _export_mixture(circuit)
        if isinstance(circuit, EiNet):
            return _export_einet(circuit)
    raise InputError(f"circuit of type {type(circuit).__name__}: expected a mixture or an EiNet")


def from_spflow(module: Module, image_shape: tuple[int, int] | None = None) -> Circuit:
    """The circuit that an SPFlow module describes, with parameters of the module's type.

    A Sum over Products of Normals, made in any of SPFlow's ways, becomes a Mixture. With an
    image_shape (height, width), a circuit laid out as `to_spflow` does becomes an EiNet.
    Raises InputError where the module is neither.
    """
    if tuple(module.out_shape) != (1, 1, 1):
        raise InputError(f"SPFlow module of shape {module.out_shape}: expected one root unit")
    if sorted(module.scope.query) != list(range(len(module.scope.query))):
        raise InputError(f"SPFlow module over {module.scope}: expected variables 0 … D − 1")
    if image_shape is not None:
        return _import_einet(module, image_shape)
    if not isinstance(module, Sum) or module.in_shape.features != 1:
        raise InputError(
            f"SPFlow module {type(module).__name__}: expected a Sum over Products of Normals, or,"
            " with an image_shape, an EiNet"
        )
    _, means, log_stds = _gaussians(module.inputs)
    return Mixture(module.log_weights.detach()[0, :, 0, 0].double(), means, log_stds)


def _normals(pixels: Tensor, means: Tensor, log_stds: Tensor) -> Product:
    """Products [K] of Gaussians: means and log standard deviations [K, pixels]."""
    loc, log_scale = (part.T[..., None].double().contiguous() for part in (means, log_stds))
    leaf = Normal(pixels.tolist(), loc=loc, scale=log_scale.exp())
    leaf.log_scale.data = log_scale
    return Product(leaf)


def _export_mixture(mixture: StreamedMixture) -> Sum:
    means, log_stds = mixture.components.parameters(slice(0, mixture.n_components))
    root = Sum(_normals(torch.arange(mixture.n_variables), means, log_stds))
    root.log_weights = mixture.log_weights[None, :, None, None].clone()
    return root


def _export_einet(model: EiNet) -> Module:
    leaves = model.leaves
    regions: list[Module] = [
        _normals(pixels, means, stds.double().log())
        for pixels, means, stds in zip(leaves.pixels, leaves.means, leaves.stds, strict=True)
    ]
    for layer in model.layers:
        pairs = zip(layer.left.tolist(), layer.right.tolist(), layer.weights, strict=True)
        partitions = []
        for left, right, weights in pairs:
            partition = EinsumLayer([regions[left], regions[right]], out_channels=len(weights))
            partition.log_weights = weights.double().log()[None, :, None]  # [1, K, 1, K, K]
            partitions.append(partition)
        for n, mixing in enumerate(layer.mixing):  # [d, K]
            regions.append(_mixed(partitions[n * layer.depth : (n + 1) * layer.depth], mixing))
    return regions[-1]


def _mixed(partitions: list[EinsumLayer], mixing: Tensor) -> Module:
    """The sums over the partitions of one region, unit by unit; mixing [d, K]."""
    if len(partitions) == 1:
        return partitions[0]
    region = ElementwiseSum(partitions, out_channels=1)
    region.log_weights = mixing.double().log().T[None, :, None, :, None]  # [1, K, 1, d, 1]
    return region


def _gaussians(module: Module) -> tuple[list[int], Tensor, Tensor]:
    """Pixels, and means and log standard deviations [channels, pixels] in their order."""
    if isinstance(module, Normal) and not module.is_conditional:
        pixels, parts = list(module.scope.query), [module.loc, module.log_scale]
        means, log_stds = (part.detach()[..., 0].T for part in parts)
    elif isinstance(module, Product):
        return _gaussians(module.inputs)
    elif isinstance(module, Cat):
        found = [_gaussians(part) for part in module.inputs]
        pixels, over = found[0][0], 0
        if module.dim == 1:
            pixels, over = [pixel for part in found for pixel in part[0]], 1
        means, log_stds = (torch.cat([part[i] for part in found], over) for i in (1, 2))
    else:
        raise InputError(f"SPFlow module {type(module).__name__}: expected Products of Normals")
    order = torch.tensor(pixels).argsort()
    return sorted(pixels), means[:, order], log_stds[:, order]


def _import_einet(root: Module, image_shape: tuple[int, int]) -> EiNet:
    regions = _by_scope(root)
    step = math.isqrt(min(len(scope) for scope in regions))
    graph = poon_domingos(image_shape, step)
    scopes = _scopes(graph)
    refusal = InputError(
        f"SPFlow module: its regions are not those of an EiNet over {image_shape} in steps of"
        f" {step} pixels; give the image_shape (height, width) that it was made for"
    )
    if set(regions) != set(scopes):
        raise refusal
    leaves = [_gaussians(regions[scope]) for scope in scopes[: len(graph.pixels)]]
    model = EiNet(graph, len(leaves[0][1])).to(leaves[0][1].dtype)
    for n, (_, means, log_stds) in enumerate(leaves):
        model.leaves.means[n], model.leaves.stds[n] = means, log_stds.exp()
    for layer, parameters in zip(graph.layers, model.layers, strict=True):
        for n, lefts in enumerate(layer.left.tolist()):
            region, d = regions[scopes[layer.start + n]], parameters.depth
            parts = list(region.inputs) if isinstance(region, ElementwiseSum) else [region]
            found = {frozenset(part.inputs[0].scope.query): part for part in parts}
            wanted = [scopes[left] for left in lefts]
            if set(found) != set(wanted):
                raise refusal
            weights = [found[scope].weights.detach()[0, :, 0] for scope in wanted]  # [K, K, K]
            parameters.weights[n * d : (n + 1) * d] = torch.stack(weights)
            if len(parts) > 1:
                order = [list(found).index(scope) for scope in wanted]
                parameters.mixing[n] = region.weights.detach()[0, :, 0, order, 0].T
    return model


def _by_scope(root: Module) -> dict[frozenset[int], Module]:
    """The module of each region of an exported EiNet, by its pixels."""
    regions: dict[frozenset[int], Module] = {}
    waiting = [root]
    while waiting:
        module = waiting.pop()
        scope = frozenset(module.scope.query)
        if scope in regions:
            continue
        regions[scope] = module
        if isinstance(module, ElementwiseSum):
            waiting += [half for part in module.inputs for half in part.inputs]
        elif isinstance(module, EinsumLayer):
            waiting += list(module.inputs)
    return regions


def _scopes(graph: RegionGraph) -> list[frozenset[int]]:
    """The pixels of each region, by its number."""
    scopes = [frozenset(pixels) for pixels in graph.pixels.tolist()]
    for layer in graph.layers:
        pairs = zip(layer.left[:, 0].tolist(), layer.right[:, 0].tolist(), strict=True)
        scopes += [scopes[left] | scopes[right] for left, right in pairs]
    return scopes
