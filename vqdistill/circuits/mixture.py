"""Mixtures of fully factorised Gaussians: p(x) = Σ_n w_n Π_d N(x_d; μ_nd, σ_nd²).

As a circuit: one sum unit over N product units, each over D Gaussian leaves. A distilled model
(Eq. 2 of the paper) is such a mixture with w_n = 1/N, the exact model (Eq. 1) one with w = p(z).
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from vqdistill.circuits.base import Circuit
from vqdistill.circuits.components import (
    LOWEST,
    Components,
    Scorer,
    StoredComponents,
    blocks,
    chunks,
    evidence,
    log_sum,
    rows_of,
)
from vqdistill.errors import InputError


class StreamedMixture(Circuit):
    """A mixture whose components are read chunk by chunk, so that they need not fit in memory."""

    def __init__(self, log_weights: Tensor, components: Components) -> None:
        if log_weights.shape != (len(components),):
            raise InputError(
                f"mixture weights of shape {tuple(log_weights.shape)}:"
                f" expected one for each of the {len(components)} components"
            )
        total = torch.logsumexp(log_weights.double(), 0).item()
        if not abs(total) < 1e-6:
            raise InputError(f"mixture weights sum to exp({total}): expected 1")
        self.log_weights = log_weights.double()
        self.components = components
        self.n_variables = components.n_variables

    @property
    def n_components(self) -> int:
        return len(self.components)

    @property
    def n_parameters(self) -> int:
        return mixture_parameters(self.n_components, self.n_variables)

    def log_prob(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        observed = self.checked(x, observed)
        weights = self.log_weights[None]
        result = log_sum(x, self.components, weights, [self.n_components], observed)[0, 0]
        return _zero_where_nothing_observed(result, observed)

    def prefix_log_prob(
        self, x: Tensor, sizes: list[int], log_weights: Tensor, observed: Tensor | None = None
    ) -> Tensor:
        """log p(x_o) of the mixtures of the first n components, for several n from one pass.

        sizes: ascending; log_weights: [S, N], several weight vectors, each normalised here over
        the first n components. Returns [S, len(sizes), B] float64, in nats.
        """
        if list(sizes) != sorted({*sizes}) or not 1 <= sizes[0] <= sizes[-1] <= self.n_components:
            raise InputError(
                f"sizes {list(sizes)}: expected ascending numbers from 1 to {self.n_components}"
            )
        observed = self.checked(x, observed)
        sums = log_sum(x, self.components, log_weights, sizes, observed)
        totals = torch.stack([torch.logsumexp(log_weights[:, :n], 1) for n in sizes], 1)
        return _zero_where_nothing_observed(sums - totals[..., None], observed)

    def sample(self, n: int, generator: torch.Generator, leaf_means: bool = False) -> Tensor:
        cumulative = self.log_weights.exp().cumsum(0)
        uniform = torch.rand(n, generator=generator, dtype=torch.float64, device=generator.device)
        uniform = uniform.to(cumulative.device) * cumulative[-1]
        index = torch.searchsorted(cumulative, uniform, right=True)
        return self._draw(index.clamp(max=self.n_components - 1), generator, leaf_means)

    def conditional_sample(
        self, x: Tensor, observed: Tensor, generator: torch.Generator, leaf_means: bool = False
    ) -> Tensor:
        # Gumbel-max: argmax_n of log w_n p_n(x_o) + Gumbel noise is a draw of the component
        observed = self.checked(x, observed)
        best = torch.full((len(x),), -torch.inf, dtype=torch.float64, device=x.device)
        index = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        for numbers, rows, terms, _ in self.terms(x, observed):
            uniform = torch.rand(
                terms.shape, generator=generator, dtype=torch.float64, device=generator.device
            ).to(x.device)
            value, position = (terms - (-uniform.log()).log()).max(1)
            better = value > best[rows]
            best[rows] = torch.where(better, value, best[rows])
            index[rows] = torch.where(better, position + numbers.start, index[rows])
        return _completed(x, observed, self._draw(index, generator, leaf_means))

    def conditional_mean(self, x: Tensor, observed: Tensor) -> Tensor:
        observed = self.checked(x, observed)
        total = torch.full((len(x),), -torch.inf, dtype=torch.float64, device=x.device)
        mean = torch.zeros(len(x), self.n_variables, dtype=torch.float64, device=x.device)
        for _, rows, terms, means in self.terms(x, observed):
            updated = torch.logaddexp(total[rows], torch.logsumexp(terms, 1)).clamp(min=LOWEST)
            responsibilities = torch.exp(terms - updated[:, None])  # [B, n]
            mean[rows] *= torch.exp(total[rows] - updated)[:, None]
            mean[rows] += responsibilities @ means.double()
            total[rows] = updated
        return _completed(x, observed, mean.to(x.dtype))

    def conditional_mode(self, x: Tensor, observed: Tensor) -> Tensor:
        # the largest term of Σ_n w_n p_n(x_o) max p_n(x_u), with max p_n(x_u) = Π_u 1 / σ_nu √2π
        observed = self.checked(x, observed)
        best = torch.full((len(x),), -torch.inf, dtype=torch.float64, device=x.device)
        index = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        parts = evidence(x, observed)
        for chunk in chunks(self.components, self.n_components):
            weights = self.log_weights[chunk.start : chunk.start + len(chunk.means)]
            scorer = Scorer(chunk, parts[0])
            for rows, block in zip(blocks(len(x)), parts, strict=True):
                peaks = (
                    -(~rows_of(observed, rows)).double() @ chunk.log_stds.double().T
                )  # [n] or [B, n]
                value, position = (scorer.exact(block) + peaks + weights).max(1)
                better = value > best[rows]
                best[rows] = torch.where(better, value, best[rows])
                index[rows] = torch.where(better, position + chunk.start, index[rows])
        return _completed(x, observed, self.components.parameters(index)[0])

    def terms(
        self, x: Tensor, observed: Tensor | None
    ) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
        """log w_n p_n(x_o) [B, n] per chunk of components and block of images; −inf: negligible.

        Yields the slices of components and images, the terms, and the components' means [n, D].
        """
        floor = torch.full((len(x),), -torch.inf, dtype=torch.float64, device=x.device)
        parts = evidence(x, observed)
        for chunk in chunks(self.components, self.n_components):
            numbers = slice(chunk.start, chunk.start + len(chunk.means))
            weights, scorer = self.log_weights[numbers], Scorer(chunk, parts[0])
            for rows, block in zip(blocks(len(x)), parts, strict=True):
                pairs = scorer.relevant(block, weights[None], floor[None, rows])
                terms = floor.new_full((len(block.x), len(weights)), -torch.inf)
                terms[pairs[0], pairs[1]] = pairs[2] + weights[pairs[1]]
                floor[rows] = torch.logaddexp(floor[rows], torch.logsumexp(terms, 1))
                yield numbers, rows, terms, chunk.means

    def _draw(self, index: Tensor, generator: torch.Generator, leaf_means: bool) -> Tensor:
        """One image [B, D] from each of the components `index` [B], or their means."""
        means, log_stds = self.components.parameters(index)
        if leaf_means:
            return means
        noise = torch.randn(means.shape, generator=generator, device=generator.device)
        return means + log_stds.exp() * noise.to(means.device)


class Mixture(StreamedMixture):
    """A mixture held in memory: log_weights [N], means [N, D], log_stds [N, D]."""

    def __init__(self, log_weights: Tensor, means: Tensor, log_stds: Tensor) -> None:
        if means.ndim != 2 or means.shape != log_stds.shape:
            raise InputError(
                f"means of shape {tuple(means.shape)} and log standard deviations of shape"
                f" {tuple(log_stds.shape)}: expected [N, D] for both"
            )
        super().__init__(log_weights, StoredComponents(means, log_stds))

    @property
    def means(self) -> Tensor:
        return self.components.means

    @property
    def log_stds(self) -> Tensor:
        return self.components.log_stds

    def first(self, n: int) -> "Mixture":
        """The mixture of the first n components, its weights normalised."""
        weights = torch.log_softmax(self.log_weights[:n], 0)
        return Mixture(weights, self.means[:n], self.log_stds[:n])


def mixture_parameters(n_components: int, n_variables: int) -> int:
    """2 per Gaussian leaf, and N − 1 for the sum: N·2D + N − 1."""
    return n_components * 2 * n_variables + n_components - 1


def uniform_log_weights(n: int, device: torch.device | str = "cpu") -> Tensor:
    """log 1/n, n times."""
    return -torch.full((n,), float(n), dtype=torch.float64, device=device).log()


def _completed(x: Tensor, observed: Tensor, values: Tensor) -> Tensor:
    return torch.where(observed, x, values)


def _zero_where_nothing_observed(log_prob: Tensor, observed: Tensor | None) -> Tensor:
    if observed is None:
        return log_prob
    return torch.where(observed.any(-1), log_prob, 0.0)
