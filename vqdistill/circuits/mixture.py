"""Mixtures of fully factorised Gaussians: p(x) = Σ_n w_n Π_d N(x_d; μ_nd, σ_nd²).

As a circuit: one sum unit over N product units, each over D Gaussian leaves. A distilled model
(Eq. 2 of the paper) is such a mixture with w_n = 1/N, the exact model (Eq. 1) one with w = p(z).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vqdistill.circuits.base import Circuit, Completions
from vqdistill.circuits.components import Chunk, Components, StoredComponents, chunks, peaks
from vqdistill.circuits.evidence import Block, Evidence, evidence, rows_of
from vqdistill.circuits.scores import (
    LOWEST,
    Pairs,
    Scorer,
    log_sum,
    log_sum_by_image,
    relevant_pairs,
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
        return self._log_prob(evidence(x, self.components, self.checked(x, observed)))[0]

    def marginals(self, x: Tensor, masks: Tensor) -> Tensor:
        return self._log_prob(Evidence(x, self.components, self.checked_masks(x, masks)))

    def _log_prob(self, known: Evidence) -> Tensor:
        """log p(x_o) [M, B]."""
        sums = log_sum(known, self.components, self.log_weights[None], [self.n_components])
        return _zero_where_nothing_observed(sums[:, 0, 0], known)

    def conditional_log_prob(self, x: Tensor, observed: Tensor) -> Tensor:
        observed = self.checked(x, observed)
        if observed.ndim == 2 or isinstance(self.components, StoredComponents):
            return super().conditional_log_prob(x, observed)  # either leaves components out early
        # one pass, since components may take long to make
        joint, marginal = self.marginals(x, torch.stack([torch.ones_like(observed), observed]))
        return joint - marginal

    def prefix_log_prob(
        self, x: Tensor, sizes: list[int], log_weights: Tensor, observed: Tensor | None = None
    ) -> Tensor:
        """log p(x_o) of the mixtures of the first n components, for several n from one pass.

        sizes: ascending; log_weights: [S, N], several weight vectors, each normalised here over
        the first n components. Returns [S, len(sizes), B] float64, in nats.
        """
        return self._prefixes(
            evidence(x, self.components, self.checked(x, observed)), sizes, log_weights
        )[0]

    def prefix_marginals(
        self, x: Tensor, sizes: list[int], log_weights: Tensor, masks: Tensor
    ) -> Tensor:
        """The same under several masks [M, D], from one pass: [M, S, len(sizes), B]."""
        return self._prefixes(
            Evidence(x, self.components, self.checked_masks(x, masks)), sizes, log_weights
        )

    def _prefixes(self, known: Evidence, sizes: list[int], log_weights: Tensor) -> Tensor:
        if list(sizes) != sorted({*sizes}) or not 1 <= sizes[0] <= sizes[-1] <= self.n_components:
            raise InputError(
                f"sizes {list(sizes)}: expected ascending numbers from 1 to {self.n_components}"
            )
        sums = log_sum(known, self.components, log_weights, sizes)
        totals = torch.stack([torch.logsumexp(log_weights[:, :n], 1) for n in sizes], 1)
        return _zero_where_nothing_observed(sums - totals[..., None], known)

    def sample(self, n: int, generator: torch.Generator, leaf_means: bool = False) -> Tensor:
        cumulative = self.log_weights.exp().cumsum(0)
        uniform = uniform_numbers((n,), generator, cumulative.device) * cumulative[-1]
        index = torch.searchsorted(cumulative, uniform, right=True)
        return self._draw(index.clamp(max=self.n_components - 1), generator, leaf_means)

    def conditional_sample(
        self, x: Tensor, observed: Tensor, generator: torch.Generator, leaf_means: bool = False
    ) -> Tensor:
        observed = self.checked(x, observed)
        draw = ComponentDraw(x, generator)
        for part in self.posterior(evidence(x, self.components, observed)):
            draw.update(part)
        return torch.where(observed, x, self._draw(draw.index, generator, leaf_means))

    def conditional_mean(self, x: Tensor, observed: Tensor) -> Tensor:
        observed = self.checked(x, observed)
        mean = RunningMean(x)
        for part in self.posterior(evidence(x, self.components, observed)):
            mean.update(part)
        return torch.where(observed, x, mean.value.to(x.dtype))

    def completions(
        self,
        x: Tensor,
        masks: Tensor,
        generators: Sequence[torch.Generator],
        leaf_means: bool = False,
    ) -> Completions:
        masks = self.checked_masks(x, masks)
        draws = [ComponentDraw(x, one) for one, _ in zip(generators, masks, strict=True)]
        means = [RunningMean(x) for _ in masks]
        log_prob = x.new_empty(len(masks), len(x), dtype=torch.float64)
        known = Evidence(x, self.components, masks)
        for part in self.posterior(known):
            draws[part.mask].update(part)
            means[part.mask].update(part)
            log_prob[part.mask, part.block.rows] = part.after
        samples = [self._draw(draw.index, draw.generator, leaf_means) for draw in draws]
        return Completions(
            _zero_where_nothing_observed(log_prob, known),
            torch.where(masks[:, None], x, torch.stack(samples)),
            torch.where(masks[:, None], x, torch.stack([m.value.to(x.dtype) for m in means])),
        )

    def conditional_mode(self, x: Tensor, observed: Tensor) -> Tensor:
        # the largest term of Σ_n w_n p_n(x_o) max p_n(x_u), with max p_n(x_u) = Π_u 1 / σ_nu √2π
        observed = self.checked(x, observed)
        best = torch.full((len(x),), -torch.inf, dtype=torch.float64, device=x.device)
        index = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        known = evidence(x, self.components, observed)
        parts = known.blocks()
        for chunk in chunks(self.components, self.n_components):
            weights, scorer = self.log_weights[chunk.slice], Scorer(chunk, known)
            largest = peaks(chunk.log_stds.double()).T
            for block in parts:
                hidden = ~rows_of(observed, block.rows)
                highest = hidden.double() @ largest  # [n] or [B, n]
                value, position = (scorer.exact(block) + highest + weights).max(1)
                better = value > best[block.rows]
                best[block.rows] = torch.where(better, value, best[block.rows])
                index[block.rows] = torch.where(better, position + chunk.start, index[block.rows])
        return torch.where(observed, x, self.components.parameters(index)[0])

    def posterior(self, known: Evidence) -> Iterator["PartialPosterior"]:
        """What each chunk of components adds to p(n | x_o), by block of images and mask."""
        total = torch.full((len(known.members), 1, len(known)), -torch.inf, dtype=torch.float64).to(
            known.x.device
        )
        for chunk, block, mask, pairs in relevant_pairs(
            known, self.components, self.log_weights[None], total
        ):
            terms = pairs.values + self.log_weights[chunk.start + pairs.numbers]
            sums = log_sum_by_image(terms[None], pairs.images, len(block.x))[0]
            before = total[mask, 0, block.rows]
            after = torch.logaddexp(before, sums).clamp(min=LOWEST)
            yield PartialPosterior(chunk, block, mask, pairs, terms, before, sums, after)
            total[mask, 0, block.rows] = after

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


@dataclass(frozen=True)
class PartialPosterior:
    """One chunk's share in p(n | x_o) ∝ w_n p_n(x_o), for one block of images and one mask."""

    chunk: Chunk
    block: Block
    mask: int
    pairs: Pairs
    terms: Tensor  # [P], log w_n p_n(x_o)
    before: Tensor  # [B], log Σ of the terms of earlier chunks
    sums: Tensor  # [B], log Σ of this chunk's terms
    after: Tensor  # [B], log Σ of both


class RunningMean:
    """Σ_n p(n | x_o) μ_n [B, D] float64, of the components so far."""

    def __init__(self, x: Tensor) -> None:
        self.value = torch.zeros_like(x, dtype=torch.float64)

    def update(self, part: PartialPosterior) -> None:
        images, places = part.pairs.images.unique(return_inverse=True)
        used, columns = part.pairs.numbers.unique(return_inverse=True)
        probabilities = torch.sparse_coo_tensor(
            torch.stack([places, columns]),
            torch.exp(part.terms - part.after[part.pairs.images]),
            (len(images), len(used)),
            is_coalesced=True,
            check_invariants=False,
        )
        earlier = torch.exp(part.before - part.after)[images, None]
        rows = part.block.rows.start + images
        means = probabilities @ part.chunk.means[used].double()
        self.value[rows] = self.value[rows] * earlier + means


class ComponentDraw:
    """A component number [B] for each image, drawn from p(n | x_o) over the components so far.

    A chunk replaces the draw with the probability that it has among all so far; within the chunk
    the component is the one where the cumulative probability passes a uniform number.
    """

    def __init__(self, x: Tensor, generator: torch.Generator) -> None:
        self.generator = generator
        self.index = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        self.chunk, self.uniform = -1, x.new_empty(0)

    def update(self, part: PartialPosterior) -> None:
        if part.chunk.start != self.chunk:  # drawn for all images, so that blocks don't matter
            shape, self.chunk = (2, len(self.index)), part.chunk.start
            self.uniform = uniform_numbers(shape, self.generator, self.index.device)
        (images, numbers, _), current = part.pairs, self.index[part.block.rows]
        counts = images.bincount(minlength=len(current))
        stop = counts.cumsum(0)
        cumulative = torch.exp(part.terms - part.sums[images]).cumsum(0)
        first, second = self.uniform[:, part.block.rows]
        start = torch.cat([cumulative.new_zeros(1), cumulative])[stop - counts]
        position = torch.searchsorted(cumulative, start + first, right=True)
        replaced = (second < torch.exp(part.sums - part.after)) & (counts > 0)
        chosen = torch.minimum(position, stop - 1)[replaced]
        current[replaced] = part.chunk.start + numbers[chosen]


def uniform_numbers(
    shape: tuple[int, ...], generator: torch.Generator, device: torch.device
) -> Tensor:
    """Of U[0, 1), float64, drawn on the generator's device and given on `device`."""
    numbers = torch.rand(shape, generator=generator, dtype=torch.float64, device=generator.device)
    return numbers.to(device)


def _zero_where_nothing_observed(log_prob: Tensor, known: Evidence) -> Tensor:
    """log 1 = 0 in place of log_prob [M, ..., B], which rounding leaves a little off."""
    if known.own_masks is not None:
        return torch.where(known.own_masks.any(1), log_prob, 0.0)
    some = known.masks.any(1)  # [M]
    return torch.where(some.view(-1, *[1] * (log_prob.ndim - 1)), log_prob, 0.0)
