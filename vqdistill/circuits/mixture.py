"""Mixtures of fully factorised Gaussians: p(x) = Σ_n w_n Π_d N(x_d; μ_nd, σ_nd²).

As a circuit: one sum unit over N product units, each over D Gaussian leaves. A distilled model
(Eq. 2 of the paper) is such a mixture with w_n = 1/N, the exact model (Eq. 1) one with w = p(z).
Where p(c | n) is known, it is a model of images and classes, p(x, c) = Σ_n w_n p(c | n) p_n(x).
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from vqdistill.circuits.base import Circuit, Completions, Stored
from vqdistill.circuits.gaussian import (
    LOWEST,
    Components,
    Evidence,
    Terms,
    mixed_std,
    relevant_terms,
)
from vqdistill.circuits.grey_levels import log_sums_discrete
from vqdistill.circuits.inputs import Array
from vqdistill.errors import InputError


class StoredComponents:
    """Components whose parameters, each [N, D], are held in memory."""

    def __init__(self, means: Tensor, log_stds: Tensor) -> None:
        self.means, self.log_stds = means, log_stds
        self.n_variables = means.shape[1]

    def __len__(self) -> int:
        return len(self.means)

    def parameters(self, index: slice | Tensor) -> tuple[Tensor, Tensor]:
        return self.means[index], self.log_stds[index]

    def to(self, device: torch.device | str) -> "StoredComponents":
        return StoredComponents(self.means.to(device), self.log_stds.to(device))

    def stored(self) -> Stored:
        return Stored("mixture", {"means": self.means, "log_stds": self.log_stds}, {})


class DecodedComponents:
    """Components that a decoder makes from component numbers when they are asked for: p(x|z)."""

    def __init__(
        self,
        decode: Callable[[Tensor], tuple[Tensor, Tensor]],
        n_components: int,
        n_variables: int,
        device: torch.device,
    ) -> None:
        self.decode, self.n_components = decode, n_components
        self.n_variables, self.device = n_variables, device

    def __len__(self) -> int:
        return self.n_components

    def parameters(self, index: slice | Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(index, slice):
            index = torch.arange(*index.indices(len(self)), device=self.device)
        return self.decode(index)

    def to(self, device: torch.device | str) -> "DecodedComponents":
        raise InputError(f"components that a function makes stay on {self.device}: expected others")

    def stored(self) -> Stored:
        raise InputError(
            "components that a function makes: expected those of a Mixture, to save it"
        )


class StreamedMixture(Circuit):
    """A mixture whose components are read chunk by chunk, so that they need not fit in memory.

    log_classes: where it is known, log p(c | n) [N, C] of each component, normalised here; under
    equally likely classes log p(n | c) gives it as well.
    """

    log_classes: Tensor | None = None

    def __init__(
        self, log_weights: Tensor, components: Components, log_classes: Tensor | None = None
    ) -> None:
        if log_weights.shape != (len(components),):
            raise InputError(
                f"mixture weights of shape {tuple(log_weights.shape)}:"
                f" expected one for each of the {len(components)} components"
            )
        total = torch.logsumexp(log_weights.double(), 0).item()
        if not abs(total) < 1e-6:
            raise InputError(f"mixture weights sum to exp({total}): expected 1")
        if log_classes is not None:
            _check_classes(log_classes, len(components))
            self.log_classes = log_classes.double()
        self.log_weights = log_weights.double()
        self.components = components
        self.n_variables = components.n_variables

    @property
    def n_components(self) -> int:
        return len(self.components)

    @property
    def n_classes(self) -> int:
        return 1 if self.log_classes is None else self.log_classes.shape[1]

    @property
    def n_parameters(self) -> int:
        return mixture_parameters(self.n_components, self.n_variables)

    @property
    def device(self) -> torch.device:
        return self.log_weights.device

    def to(self, device: torch.device | str) -> "StreamedMixture":
        self.log_weights = self.log_weights.to(device)
        if self.log_classes is not None:
            self.log_classes = self.log_classes.to(device)
        self.components = self.components.to(device)
        return self

    def _stored(self) -> Stored:
        return self._stored_with(self.components)

    def _stored_with(self, components: Components) -> Stored:
        """Weights and classes beside what a file holds of components."""
        kind, tensors, facts = components.stored()
        own = {"log_weights": self.log_weights}
        if self.log_classes is not None:
            own["log_classes"] = self.log_classes
        return Stored(kind, own | tensors, facts)

    def _log_prob(self, x: Tensor, observed: Tensor | None) -> Tensor:
        return self._log_sums(evidence_of(x, observed))[0]

    def _marginals(self, x: Tensor, masks: Tensor) -> Tensor:
        return self._log_sums(Evidence(x, masks))

    def _conditional_log_prob(self, x: Tensor, observed: Tensor) -> Tensor:
        if observed.ndim == 2:
            return super()._conditional_log_prob(x, observed)
        joint, marginal = self._marginals(x, torch.stack([torch.ones_like(observed), observed]))
        return joint - marginal

    def _class_log_prob(self, x: Tensor, observed: Tensor | None) -> Tensor:
        weights = self.log_weights + self.log_classes.log_softmax(1).T  # [C, N], log w_n p(c | n)
        joint = log_sums(
            evidence_of(x, observed), self.components, weights, [self.n_components]
        )  # [1, C, 1, B]
        return joint[0, :, 0].T.log_softmax(1)

    def prefix_log_prob(
        self, x: Array, sizes: list[int], log_weights: Tensor, observed: Array | None = None
    ) -> Tensor:
        """log p(x_o) of the mixtures of the first n components, for several n from one pass.

        sizes: ascending; log_weights: [S, N], several weight vectors, each normalised here over
        the first n components. Returns [S, len(sizes), B] float64, in nats.
        """
        evidence = evidence_of(*self._asked(x, observed, optional=True))
        return self._prefixes(evidence, sizes, log_weights)[0]

    def prefix_marginals(
        self, x: Array, sizes: list[int], log_weights: Tensor, masks: Array
    ) -> Tensor:
        """The same under several masks [M, D], from one pass: [M, S, len(sizes), B]."""
        return self._prefixes(Evidence(*self._asked_of_several(x, masks)), sizes, log_weights)

    def prefix_log_prob_discrete(
        self, images: Array, sizes: list[int], log_weights: Tensor
    ) -> Tensor:
        """The same of the probabilities of grey levels (`log_prob_discrete`) [S, len(sizes), B]."""
        self._check_levels("prefix_log_prob_discrete")
        with torch.no_grad():
            return self._prefixes_discrete(self._asked_levels(images), sizes, log_weights)

    def _sample(self, n: int, generator: torch.Generator, leaf_means: bool) -> Tensor:
        cumulative = self.log_weights.exp().cumsum(0)
        uniform = uniform_numbers((n,), generator, cumulative.device) * cumulative[-1]
        index = torch.searchsorted(cumulative, uniform, right=True)
        return self._draw(index.clamp(max=self.n_components - 1), generator, leaf_means)

    def _conditional_sample(
        self, x: Tensor, observed: Tensor, generator: torch.Generator, leaf_means: bool
    ) -> Tensor:
        draw = ComponentDraw(len(x), x.device, generator)
        for terms in self._terms(evidence_of(x, observed)):
            draw.update(terms)
        return self._draw(draw.index, generator, leaf_means)

    def _conditional_mean(self, x: Tensor, observed: Tensor) -> Tensor:
        mean = PosteriorMean(*x.shape, x.device)
        for terms in self._terms(evidence_of(x, observed)):
            mean.update(terms, terms.chunk.means.double())
        return mean.value

    def _conditional_std(self, x: Tensor, observed: Tensor) -> Tensor:
        moments = PosteriorMean(len(x), 3 * x.shape[1], x.device)
        for terms in self._terms(evidence_of(x, observed)):
            means, log_stds = terms.chunk.means.double(), terms.chunk.log_stds.double()
            moments.update(terms, torch.cat([means, means.square(), (2 * log_stds).exp()], 1))
        return mixed_std(*moments.value.chunk(3, 1))

    def _completions(
        self, x: Tensor, masks: Tensor, generators: list[torch.Generator], leaf_means: bool
    ) -> Completions:
        draws = [ComponentDraw(len(x), x.device, generator) for generator in generators]
        means = [PosteriorMean(*x.shape, x.device) for _ in masks]
        evidence = Evidence(x, masks)
        log_prob = x.new_empty(len(masks), len(x), dtype=torch.float64)
        for terms in self._terms(evidence):
            draws[terms.mask].update(terms)
            means[terms.mask].update(terms, terms.chunk.means.double())
            log_prob[terms.mask, terms.rows] = terms.after[0]
        samples = [self._draw(draw.index, draw.generator, leaf_means) for draw in draws]
        return Completions(
            _zero_where_nothing_observed(log_prob, evidence),
            torch.stack(samples),
            torch.stack([mean.value for mean in means]),
        )

    def _conditional_mode(self, x: Tensor, observed: Tensor) -> Tensor:
        best = torch.full((len(x),), -torch.inf, dtype=torch.float64, device=x.device)
        index = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        for terms in self._terms(evidence_of(x, observed), at_mode=True):
            images, values = terms.rows.start + terms.images, terms.values[0]
            best = best.scatter_reduce(0, images, values, "amax")
            largest = values == best[images]
            index[images[largest]] = terms.chunk.start + terms.numbers[largest]
        return self.components.parameters(index)[0]

    def responsibilities(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log p(x) [B] and p(n | x) [B, N], a sparse matrix without negligible ones; float64."""
        log_prob = torch.empty(len(x), dtype=torch.float64, device=x.device)
        found = []
        for terms in self._terms(evidence_of(x, None)):
            log_prob[terms.rows] = terms.after[0]
            images = terms.rows.start + terms.images
            found.append((images, terms.chunk.start + terms.numbers, terms.values[0]))
        images, numbers, values = (torch.cat(part) for part in zip(*found, strict=True))
        shares = torch.exp(values - log_prob[images])
        return log_prob, sparse_matrix(images, numbers, shares, (len(x), self.n_components))

    def _terms(self, evidence: Evidence, at_mode: bool = False) -> Iterator[Terms]:
        return relevant_terms(evidence, self.components, self.log_weights[None], at_mode=at_mode)

    def _log_sums(self, evidence: Evidence) -> Tensor:
        """log p(x_o) [M, B]."""
        sums = log_sums(evidence, self.components, self.log_weights[None], [self.n_components])
        return _zero_where_nothing_observed(sums[:, 0, 0], evidence)

    def _log_prob_discrete(self, images: Tensor) -> Tensor:
        return self._prefixes_discrete(images, [self.n_components], self.log_weights[None])[0, 0]

    def _prefixes_discrete(self, images: Tensor, sizes: list[int], log_weights: Tensor) -> Tensor:
        self._check_sizes(sizes)
        sums = log_sums_discrete(images, self.levels, self.components, log_weights, sizes)
        return sums - _log_totals(log_weights, sizes)

    def _prefixes(self, evidence: Evidence, sizes: list[int], log_weights: Tensor) -> Tensor:
        self._check_sizes(sizes)
        sums = log_sums(evidence, self.components, log_weights, sizes)
        return _zero_where_nothing_observed(sums - _log_totals(log_weights, sizes), evidence)

    def _check_sizes(self, sizes: list[int]) -> None:
        if list(sizes) != sorted({*sizes}) or not 1 <= sizes[0] <= sizes[-1] <= self.n_components:
            raise InputError(
                f"sizes {list(sizes)}: expected ascending numbers from 1 to {self.n_components}"
            )

    def _draw(self, index: Tensor, generator: torch.Generator, leaf_means: bool) -> Tensor:
        """One image [B, D] from each of the components `index` [B], or their means."""
        means, log_stds = self.components.parameters(index)
        if leaf_means:
            return means
        noise = torch.randn(means.shape, generator=generator, device=generator.device)
        return means + log_stds.exp() * noise.to(means.device)


class Mixture(StreamedMixture):
    """A mixture held in memory: log_weights [N], means [N, D], log_stds [N, D]."""

    def __init__(
        self,
        log_weights: Tensor,
        means: Tensor,
        log_stds: Tensor,
        log_classes: Tensor | None = None,
    ) -> None:
        if means.ndim != 2 or means.shape != log_stds.shape:
            raise InputError(
                f"means of shape {tuple(means.shape)} and log standard deviations of shape"
                f" {tuple(log_stds.shape)}: expected [N, D] for both"
            )
        super().__init__(log_weights, StoredComponents(means, log_stds), log_classes)

    @property
    def means(self) -> Tensor:
        return self.components.means

    @property
    def log_stds(self) -> Tensor:
        return self.components.log_stds

    @classmethod
    def from_stored(cls, tensors: dict[str, Tensor], facts: dict[str, Any]) -> "Mixture":
        """The mixture that `save` wrote."""
        names = ("log_weights", "means", "log_stds")
        return cls(*(tensors[name] for name in names), tensors.get("log_classes"))

    def first(self, n: int) -> "Mixture":
        """The mixture of the first n components, its weights normalised."""
        weights = torch.log_softmax(self.log_weights[:n], 0)
        classes = None if self.log_classes is None else self.log_classes[:n]
        first = Mixture(weights, self.means[:n], self.log_stds[:n], classes)
        first.image_shape, first.levels = self.image_shape, self.levels
        return first


def evidence_of(x: Tensor, observed: Tensor | None) -> Evidence:
    """Images [B, D] under one mask [D], one each [B, D], or with all pixels observed."""
    if observed is None:
        observed = torch.ones(x.shape[1], dtype=torch.bool, device=x.device)
    return Evidence(x, observed, own=True) if observed.ndim == 2 else Evidence(x, observed[None])


def mixture_parameters(n_components: int, n_variables: int) -> int:
    """2 per Gaussian leaf, and N − 1 for the sum: N·2D + N − 1."""
    return n_components * 2 * n_variables + n_components - 1


def uniform_log_weights(n: int, device: torch.device | str = "cpu") -> Tensor:
    """log 1/n, n times."""
    return -torch.full((n,), float(n), dtype=torch.float64, device=device).log()


def log_sums(
    evidence: Evidence,
    components: Components,
    log_weights: Tensor,
    sizes: list[int],
    before: Tensor | None = None,
) -> Tensor:
    """log Σ_{n ≤ size} w_n p_n(x_o) for several masks, weights and sizes, from one pass.

    log_weights: [S, N] float64, not necessarily normalised; sizes: ascending, at most N; before:
    the logarithms [M, S, B] of sums that these go on from. Returns [M, S, len(sizes), B] float64,
    in nats.
    """
    n_masks = len(evidence.members)
    parts: dict[int, list[Tensor]] = {size: [] for size in sizes}
    log_weights = log_weights[:, : sizes[-1]]
    for terms in relevant_terms(evidence, components, log_weights, sizes, before=before):
        end = terms.chunk.start + len(terms.chunk.means)
        if end in parts:
            parts[end].append(terms.after)  # block by block of images, mask by mask
    sums = [
        torch.stack([torch.cat(of_size[mask::n_masks], 1) for mask in range(n_masks)])
        for of_size in parts.values()
    ]
    sums = torch.stack(sums, 2)
    return torch.where(sums > LOWEST / 2, sums, -torch.inf)


class PosteriorMean:
    """Σ_n p(n | x_o) f_n [B, F] float64, of the components so far."""

    def __init__(self, n_images: int, n_features: int, device: torch.device) -> None:
        self.value = torch.zeros(n_images, n_features, dtype=torch.float64, device=device)

    def update(self, terms: Terms, features: Tensor) -> None:
        """Goes on with a chunk of components, of features f [n, F]."""
        rows, before, after = terms.rows, terms.before[0], terms.after[0]
        shares = torch.exp(terms.values[0] - after[terms.images])
        shape = (len(after), len(features))
        means = sparse_matrix(terms.images, terms.numbers, shares, shape) @ features
        self.value[rows] = self.value[rows] * torch.exp(before - after)[:, None] + means


class ComponentDraw:
    """A component number [B] for each image, drawn from p(n | x_o) over the components so far.

    A chunk replaces the draw with the probability that it has among all so far; within the chunk
    the component is the one where the cumulative probability passes a uniform number.
    """

    def __init__(self, n: int, device: torch.device, generator: torch.Generator) -> None:
        self.generator = generator
        self.index = torch.zeros(n, dtype=torch.int64, device=device)
        self.chunk, self.uniform = -1, torch.empty(0)

    def update(self, terms: Terms) -> None:
        if terms.chunk.start != self.chunk:  # drawn for all images, so that blocks don't matter
            self.chunk = terms.chunk.start
            self.uniform = uniform_numbers((2, len(self.index)), self.generator, self.index.device)
        first, second = self.uniform[:, terms.rows]
        sums, current = terms.sums[0], self.index[terms.rows]
        counts = terms.images.bincount(minlength=len(current))
        stop = counts.cumsum(0)
        cumulative = torch.exp(terms.values[0] - sums[terms.images]).cumsum(0)
        start = torch.cat([cumulative.new_zeros(1), cumulative])[stop - counts]
        position = torch.searchsorted(cumulative, start + first, right=True)
        replaced = (second < torch.exp(sums - terms.after[0])) & (counts > 0)
        chosen = torch.minimum(position, stop - 1)[replaced]
        current[replaced] = terms.chunk.start + terms.numbers[chosen]


def sparse_matrix(rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """The matrix with these values at distinct places, zero elsewhere."""
    index = torch.stack([rows, columns])
    return torch.sparse_coo_tensor(index, values, shape, check_invariants=False)


def uniform_numbers(
    shape: tuple[int, ...], generator: torch.Generator, device: torch.device
) -> Tensor:
    """Of U[0, 1), float64, drawn on the generator's device and given on `device`."""
    numbers = torch.rand(shape, generator=generator, dtype=torch.float64, device=generator.device)
    return numbers.to(device)


def _check_classes(log_classes: Tensor, n: int) -> None:
    """InputError unless they are log p(c | n) [N, C], normalised or not."""
    if log_classes.ndim != 2 or len(log_classes) != n:
        raise InputError(
            f"log_classes of shape {tuple(log_classes.shape)}: expected [{n}, C], log p(c | n) for"
            " each of the components"
        )
    impossible = (~log_classes.logsumexp(1).isfinite()).nonzero().flatten()
    if len(impossible):
        raise InputError(
            f"log_classes of component {impossible[0]}: expected log p(c | n) with a class that is"
            " possible, in finite numbers; leave the component out"
        )


def _log_totals(log_weights: Tensor, sizes: list[int]) -> Tensor:
    """log Σ_{n ≤ size} w_n [S, len(sizes), 1]."""
    return torch.stack([torch.logsumexp(log_weights[:, :n], 1) for n in sizes], 1)[..., None]


def _zero_where_nothing_observed(log_prob: Tensor, evidence: Evidence) -> Tensor:
    """log 1 = 0 in place of log_prob [M, ..., B], which rounding leaves a little off."""
    some = evidence.masks.any(1)  # [M], or [B] where each image has its own mask
    if not evidence.own:
        some = some.view(-1, *[1] * (log_prob.ndim - 1))
    return torch.where(some, log_prob, 0.0)
