"""What the models guarantee, each measured against an exact answer on a model small enough for it.

Every check returns the largest deviation that it saw; `GUARANTEES` says how much is allowed. The
same checks run on the code as it is (test_exact_answers.py) and on deliberately broken copies of
it, which they must refuse (test_mutants.py). `PYTHONPATH=tests python tests/trust/exact_answers.py`
lists what they measure.

Priors have three layers or more, two classes or more and, unless a check says otherwise, are
peaked; mixtures have weights that span nats. All is float64, so that tolerances can be tight.
"""

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from helpers import (
    chi_square,
    class_log_probs,
    einet_of,
    every_latent,
    expanded,
    expanded_tree,
    explicit,
    mixture_of,
    quad_tree_of,
    seeded,
    small_prior,
    terms,
)
from scipy.stats import norm
from spflow.modules.leaves import Normal as SpflowNormal
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from vqdistill import settings
from vqdistill.baselines import continuous_mixture, einet, gmm, quad_tree
from vqdistill.circuits.einet import EiNet
from vqdistill.circuits.grey_levels import Chunk
from vqdistill.circuits.mixture import DecodedComponents, Mixture, StreamedMixture
from vqdistill.circuits.spflow import to_spflow
from vqdistill.distillation import dmbs, dmrs, mixtures
from vqdistill.distillation.enumeration import index_of
from vqdistill.distillation.exm import log_probs_of_all
from vqdistill.models.pixelcnn import PixelCNN
from vqdistill.models.vqvae import VQVAE

GUARANTEES: dict[str, tuple[Callable[[], float], float]] = {}
ROUNDING = 1e-10


def guarantee(allowed: float) -> Callable:
    """Registers a check under its name, with the deviation that is allowed."""

    def register(check: Callable[[], float]) -> Callable[[], float]:
        GUARANTEES[check.__name__] = check, allowed
        return check

    return register


@torch.no_grad()
def hold(name: str) -> float:
    """The deviation that a check saw; AssertionError where it is more than allowed, or NaN."""
    check, allowed = GUARANTEES[name]
    deviation = check()
    assert deviation <= allowed, f"{name}: {deviation} seen, {allowed} allowed"
    return deviation


def largest(found: Tensor, expected: Tensor) -> float:
    """The largest difference of two tensors; NaN where either is."""
    assert found.shape == expected.shape
    return (found - expected).abs().max().item()


def worst(*deviations: float) -> float:
    """The largest; infinite where one is NaN, which `max` may pass over."""
    return max(math.inf if math.isnan(deviation) else deviation for deviation in deviations)


# priors


def prior_of(size=3, grid=(2, 2), classes=2, layers=3, sharpness=30.0) -> PixelCNN:
    """An untrained prior whose conditionals get more peaked with `sharpness`."""
    prior = small_prior(grid, size, classes, layers, seed=1).double()
    prior.head[-1].weight.mul_(sharpness)
    return prior


def conditionals(prior, codes: Tensor, class_: int) -> Tensor:
    """log p(z_i = . | z_<i, c) [N, HW, K] by one full pass."""
    logits = prior(codes, torch.full((len(codes),), class_))
    return logits.flatten(1, 2).log_softmax(-1)


def joint_of(prior) -> Tensor:
    """p(z, c) [K^(HW), C] of every latent, from the full pass's conditionals."""
    codes = every_latent(prior.codebook_size, prior.grid)
    by_class = [
        conditionals(prior, codes, c).gather(2, codes.flatten(1)[..., None]).sum((1, 2))
        for c in range(prior.n_classes)
    ]
    return torch.stack(by_class, 1).exp() / prior.n_classes


class Counted:
    """A prior whose evaluated conditionals are counted from outside, and limited."""

    def __init__(self, prior, budget: float = math.inf) -> None:
        self.prior, self.budget, self.count = prior, budget, 0

    def __getattr__(self, name: str):
        return getattr(self.prior, name)

    def next_log_probs(self, prefixes) -> Tensor:
        self.count += len(prefixes.codes) * self.prior.codebook_size
        assert self.count <= self.budget, f"{self.count} evaluations, {self.budget} allowed"
        return self.prior.next_log_probs(prefixes)


GRIDS = [(2, 2), (1, 3), (3, 1), (2, 3)]


@guarantee(ROUNDING)
def prior_sums_to_one() -> float:
    """|Σ_z p(z|c) − 1| over the whole grid, each class, flat and peaked."""
    deviation = 0.0
    for grid, sharpness in itertools.product(GRIDS, (1.0, 30.0)):
        prior = prior_of(2, grid, 3, 4, sharpness)
        codes = every_latent(prior.codebook_size, prior.grid)
        for c in range(3):
            total = prior.log_prob(codes, torch.full((len(codes),), c)).exp().sum().item()
            deviation = worst(deviation, abs(total - 1))
    return deviation


@guarantee(0.0)
def prior_is_causal() -> float:
    """The change of a conditional when its own or a later code changes."""
    deviation = 0.0
    for grid, layers in itertools.product([*GRIDS, (4, 4)], (1, 3, 5, 10)):
        prior = prior_of(5, grid, 2, layers)
        codes = torch.randint(5, (1, *grid), generator=seeded())
        before = conditionals(prior, codes, 1)[0]
        for i in range(codes.numel()):
            changed = codes.clone()
            changed.view(-1)[i] = (changed.view(-1)[i] + 1) % 5
            after = conditionals(prior, changed, 1)[0]
            deviation = worst(deviation, largest(after[: i + 1], before[: i + 1]))
    return deviation


@guarantee(1e-5)
def incremental_equals_full_pass() -> float:
    """Relative difference of conditionals, over prefixes dropped, repeated and reordered."""
    deviation = 0.0
    for grid, layers, n in itertools.product([*GRIDS, (4, 4)], (1, 3, 5), (1, 9)):
        prior, g = prior_of(4, grid, 3, layers).float(), seeded(2)
        classes = torch.randint(3, (n,), generator=g)
        prefixes = prior.begin(classes)
        for i in range(math.prod(grid)):
            rest = torch.randint(4, (n, math.prod(grid) - i), generator=g)
            codes = torch.cat([prefixes.codes, rest], 1).unflatten(1, grid)
            full = prior(codes, classes).flatten(1, 2)[:, i].double().log_softmax(-1)
            found = prior.next_log_probs(prefixes)
            deviation = worst(deviation, ((found - full) / full).abs().max().item())
            parents = torch.randint(n, (n,), generator=g)
            prefixes = prior.extend(prefixes, parents, torch.randint(4, (n,), generator=g))
            classes = classes[parents]
    return deviation


# the exact model


def teacher() -> tuple[object, PixelCNN, Tensor]:
    """A VQ-VAE of 3 codes on a 2×2 grid with a peaked prior, and images it is unsure about."""
    small = settings.VQVAE(grid=(2, 2), codebook_size=3, channels=(4, 6), ema_decay=0.9)
    torch.manual_seed(0)
    vqvae = VQVAE((8, 8), small).double().eval()
    vqvae.codebook.vectors.normal_()
    vqvae.decoder[-1].weight.mul_(24)  # latents that differ by nats
    return vqvae, prior_of(sharpness=15.0), torch.rand(5, 64, generator=seeded(1)).double()


def double_loop(vqvae, weights: Tensor, codes: Tensor, x: Tensor) -> Tensor:
    """log Σ_c Σ_z w_zc Π_s N(x_s; μ_s(z), σ_s(z)) [B], one class and one latent at a time."""
    total = torch.full((len(x),), -math.inf, dtype=torch.float64)
    for z, row in zip(codes, weights, strict=True):
        means, log_stds = vqvae.decode(z[None])
        log_likelihood = Normal(means, log_stds.exp()).log_prob(x).sum(1)
        for weight in row:
            total = torch.logaddexp(total, weight.log() + log_likelihood)
    return total


def uniform(n: int) -> Tensor:
    return torch.full((n, 1), 1 / n, dtype=torch.float64)


@guarantee(1e-8)
def exact_model_is_the_double_loop() -> float:
    """ExM against Σ_c Σ_z p(c) p(z|c) p(x|z), in nats."""
    vqvae, prior, x = teacher()
    expected = double_loop(vqvae, joint_of(prior), every_latent(prior.codebook_size, prior.grid), x)
    return largest(mixtures.exact_mixture(vqvae, *log_probs_of_all(prior)).log_prob(x), expected)


@guarantee(1e-8)
def all_latents_with_prior_weights_are_the_exact_model() -> float:
    """Footnote 1 of the paper: all 81 latents, in the order of their selection."""
    vqvae, prior, x = teacher()
    exact = mixtures.exact_mixture(vqvae, *log_probs_of_all(prior)).log_prob(x)
    deviations = []
    for method in (dmrs, dmbs):
        chosen = method.select(prior, 81, seeded())
        distilled = mixtures.distilled_mixture(vqvae, chosen.codes, chosen.log_prob.log_softmax(0))
        deviations.append(largest(distilled.log_prob(x), exact))
    return worst(*deviations)


@guarantee(1e-8)
def uniform_weights_are_equation_2() -> float:
    """1/N Σ_n p(x|z_n), for the exact model's latents and for a selection."""
    vqvae, prior, x = teacher()
    codes = every_latent(prior.codebook_size, prior.grid)
    exact = mixtures.exact_mixture(vqvae, *log_probs_of_all(prior), uniform=True).log_prob(x)
    deviation = largest(exact, double_loop(vqvae, uniform(81), codes, x))
    some = dmrs.select(prior, 7, seeded()).codes
    expected = double_loop(vqvae, uniform(7), some, x)
    return worst(deviation, largest(mixtures.distilled_mixture(vqvae, some).log_prob(x), expected))


# selections


@guarantee(ROUNDING)
def wide_beam_returns_every_latent() -> float:
    """With all K children and a width of K^(HW): all latents of each class, by their score."""
    prior, deviation = prior_of(), 0.0
    for c in range(2):
        codes, scores = dmbs.search(prior, c, 81, seeded())
        assert len(index_of(codes, 3, prior.grid).unique()) == 81, "a latent is missing"
        exact = joint_of(prior)[index_of(codes, 3, prior.grid), c].log() + math.log(2)
        deviation = worst(deviation, largest(scores, exact))
    return deviation


@guarantee(ROUNDING)
def beam_scores_are_log_p_of_their_class() -> float:
    """log p(z|c) recomputed from scratch, for narrow beams; and all classes' for a selection."""
    prior = prior_of(classes=3, layers=4)
    chosen = dmbs.select(prior, 20, seeded())
    exact = joint_of(prior)[index_of(chosen.codes, 3, prior.grid)].log() + math.log(3)
    deviation = largest(chosen.log_prob_by_class, exact)
    for c, width in itertools.product(range(3), (1, 2, 5, 20)):
        codes, scores = dmbs.search(prior, c, width, seeded(width))
        exact = joint_of(prior)[index_of(codes, 3, prior.grid), c].log() + math.log(3)
        deviation = worst(deviation, largest(scores, exact))
    return deviation


@guarantee(0.0)
def selections_are_distinct_and_complete() -> float:
    """N minus the number of distinct codes, where classes differ and where they all agree."""
    alike = prior_of(classes=3)
    for layer in alike.layers:
        layer.classes.weight[:] = layer.classes.weight[:1].clone()
    lacking = [
        n - len(method.select(prior, n, seeded(n)).codes.flatten(1).unique(dim=0))
        for prior in (prior_of(), prior_of(sharpness=200.0), alike)
        for method in (dmbs, dmrs)
        for n in (1, 2, 9, 40, 81)
    ]
    return worst(*map(abs, lacking))


@guarantee(1.0)
def beam_costs_are_linear() -> float:
    """Evaluations of DMBS by a wrapped prior, over 4 N C H W K; they are those it reports."""
    share = 0.0
    for n, sharpness in itertools.product((1, 5, 32, 100), (1.0, 30.0)):
        bound = 4 * n * 2 * 16 * 4
        prior = Counted(prior_of(4, (4, 4), sharpness=sharpness), 1.25 * bound)
        chosen = dmbs.select(prior, n, seeded())
        reported = chosen.evaluations + chosen.weighting_evaluations
        assert reported == prior.count, "evaluations that were not counted"
        share = worst(share, chosen.evaluations / bound)
    return share


def beam(prior, n, generator, taken):
    return dmrs.draw_beam(prior, n, generator, set())


@guarantee(1.0)
def dmrs_samples_without_replacement() -> float:
    """χ² of the first two latents (of 8, in 28 pairs) over its critical value at p = 10⁻³.

    By enumeration, ancestral sampling and beam, with a peaked prior; with a flat one too.
    """
    cases = [(path, 15.0) for path in (dmrs.draw_enumerated, dmrs.draw_ancestral, beam)]
    excess, draws = 0.0, 240
    for path, sharpness in [*cases, (dmrs.draw_enumerated, 1.0)]:
        prior, generator = prior_of(2, (1, 3), sharpness=sharpness), seeded(7)
        p = joint_of(prior).sum(1)
        ordered = p[:, None] * p / (1 - p[:, None])
        expected = draws * (ordered + ordered.T).triu(1)
        counts = torch.zeros(8, 8, dtype=torch.float64)
        nothing = torch.zeros(0, 1, 3, dtype=torch.int64)
        for _ in range(draws):
            pair = index_of(path(prior, 2, generator, nothing)[0], 2, (1, 3)).sort().values
            counts[pair[0], pair[1]] += 1
        assert counts.diagonal().sum() == 0, "a latent was drawn twice"
        excess = worst(excess, chi_square(counts, expected))
    return excess


@guarantee(1.0)
def dmrs_ends_where_one_latent_has_all_the_mass() -> float:
    """Evaluations by a wrapped prior over 60 N H W K, where other latents have p < 10⁻⁶."""
    prior = Counted(prior_of(sharpness=3000.0), 60 * 9 * 4 * 3)
    assert joint_of(prior.prior).sum(1).sort().values[-2] < 1e-6, "not peaked"
    nothing = torch.zeros(0, 2, 2, dtype=torch.int64)
    codes, _ = dmrs.draw_ancestral(prior, 9, seeded(), nothing)
    assert len(codes.flatten(1).unique(dim=0)) == 9, "not distinct"
    return prior.count / prior.budget


# circuits, on one to three pixels, against quadrature


def circuits_of(d: int, smallest: float = 0.25) -> list:
    """Circuits over d pixels; an EiNet needs two at least."""
    found = [mixture_of(16, d, smallest), quad_tree_of((1, d), 2), quad_tree_of((d, 1), 2, 2, 1)]
    return [*found, einet_of((1, d), 3)] if d > 1 else found[:2]


SEARCH_STEPS = {1: 0.01, 2: 0.05, 3: 0.4}
STEPS = {1: 0.01, 2: 0.05, 3: 0.2}  # the trapezoid rule is exact to e^{−2π²(σ/step)²}


def quadrature(x: Tensor, observed: Tensor, step: float = 0.0) -> tuple[Tensor, float]:
    """x [D] with its hidden pixels on a grid of points [n, D], and the volume of a cell."""
    hidden = (~observed).nonzero().flatten()
    if not len(hidden):
        return x[None], 1.0
    step = step or STEPS[len(hidden)]
    axis = torch.arange(-4, 5, step, dtype=x.dtype)
    points = torch.cartesian_prod(*[axis] * len(hidden)).view(-1, len(hidden))
    images = x.expand(len(points), -1).clone()
    images[:, hidden] = points
    return images, step ** len(hidden)


def masks(d: int) -> Tensor:
    """Every mask of d pixels [2^d, d], none and all among them."""
    return torch.tensor(list(itertools.product([False, True], repeat=d)))


def some_image(d: int) -> Tensor:
    return torch.rand(d, generator=seeded(4), dtype=torch.float64)


@guarantee(1e-7)
def density_integrates_to_one() -> float:
    deviation = 0.0
    for d in (1, 2, 3):
        points, volume = quadrature(some_image(d), torch.zeros(d, dtype=torch.bool))
        for circuit in circuits_of(d):
            total = circuit.log_prob(points).exp().sum().item() * volume
            deviation = worst(deviation, abs(total - 1))
    return deviation


@guarantee(1e-7)
def marginal_is_the_integral_of_the_joint() -> float:
    """In nats, for every mask, alone and all at once; the conditional is joint over integral."""
    deviation = 0.0
    for d in (1, 2, 3):
        x = some_image(d)[None]
        for circuit in circuits_of(d):
            cases = [quadrature(x[0], observed) for observed in masks(d)]
            sums = [circuit.log_prob(points).logsumexp(0) for points, _ in cases]
            integrals = torch.stack(sums) + torch.tensor([v for _, v in cases], dtype=x.dtype).log()
            joint = terms(circuit, x).logsumexp(1)
            alone = [circuit.log_prob(x, observed) for observed in masks(d)]
            conditional = [circuit.conditional_log_prob(x, observed) for observed in masks(d)]
            deviation = worst(
                deviation,
                largest(torch.cat(alone), integrals),
                largest(circuit.marginals(x, masks(d))[:, 0], integrals),
                largest(torch.cat(conditional), joint - integrals),
            )
    return deviation


@guarantee(0.0)
def nothing_observed_is_certain_and_everything_is_the_joint() -> float:
    """log p(x_∅) = log 1 = 0 to the bit, and log p(x_o) with all observed is log p(x)."""
    deviation = 0.0
    for circuit in (mixture_of(40, 9), einet_of((3, 3), 2), quad_tree_of((3, 3), 2, 2, 1)):
        x = torch.rand(7, 9, generator=seeded(1), dtype=torch.float64)
        for shape in ((9,), (7, 9)):
            nothing = circuit.log_prob(x, torch.zeros(shape, dtype=torch.bool))
            everything = circuit.log_prob(x, torch.ones(shape, dtype=torch.bool))
            error = largest(everything, circuit.log_prob(x))
            deviation = worst(deviation, nothing.abs().max().item(), error * (error > ROUNDING))
    return deviation


@guarantee(1e-6)
def conditional_mean_is_that_of_quadrature() -> float:
    """E[x_u | x_o] in units of grey, for every mask, alone and all at once."""
    deviation = 0.0
    for d in (2, 3):
        x = some_image(d)[None]
        for circuit in circuits_of(d):
            points = [quadrature(x[0], observed)[0] for observed in masks(d)]
            means = torch.stack([circuit.log_prob(p).softmax(0) @ p for p in points])
            alone = [circuit.conditional_mean(x, observed) for observed in masks(d)]
            together = circuit.completions(x, masks(d), [seeded()] * len(means)).means
            deviation = worst(
                deviation, largest(torch.cat(alone), means), largest(together[:, 0], means)
            )
    return deviation


@guarantee(1e-6)
def conditional_std_is_that_of_quadrature() -> float:
    """√Var[x_u | x_o] in units of grey, pixel by pixel, for every mask; 0 where observed."""
    deviation = 0.0
    for d in (2, 3):
        x = some_image(d)[None]
        for circuit, observed in itertools.product(circuits_of(d), masks(d)):
            points = quadrature(x[0], observed)[0]
            shares = circuit.log_prob(points).softmax(0)
            variances = shares @ (points - shares @ points).square()
            found = circuit.conditional_std(x, observed)[0]
            expected = torch.where(observed, 0.0, variances.clamp(min=0).sqrt())
            deviation = worst(deviation, largest(found, expected))
    return deviation


@guarantee(1e-8)
def classes_follow_bayes_rule() -> float:
    """log p(c | x_o) in nats, for every mask: over components, trees, and the latents of a VQ-VAE
    with p(c | z) = p(z, c) / p(z), of ExM by w = p(z) and of DMRS by w = 1/N."""
    deviation = 0.0
    for d in (1, 2, 3):
        x = some_image(d)[None]
        trees = [quad_tree_of((1, d), 2, 3)] + [quad_tree_of((d, 1), 2, 2, 1)] * (d > 1)
        for circuit in (mixture_of(16, d, n_classes=3), *trees):
            for observed in masks(d):
                found = circuit.class_log_prob(x, observed)
                deviation = worst(deviation, largest(found, class_log_probs(circuit, x, observed)))
    vqvae, prior, x = teacher()
    some = dmrs.select(prior, 7, seeded())
    exact = mixtures.exact_mixture(vqvae, *log_probs_of_all(prior))
    by_class = some.log_prob_by_class
    distilled = mixtures.distilled_mixture(vqvae, some.codes, log_prob_by_class=by_class)
    joint = joint_of(prior)  # [K^(HW), C]
    shares = joint[index_of(some.codes, 3, prior.grid)]
    cases = [(exact, every_latent(3, prior.grid), joint)]
    cases.append((distilled, some.codes, shares / shares.sum(1, keepdim=True)))
    for circuit, codes, weights in cases:
        of_class = [double_loop(vqvae, weights[:, [c]], codes, x) for c in range(2)]
        expected = torch.stack(of_class, 1).log_softmax(1)
        deviation = worst(deviation, largest(circuit.class_log_prob(x), expected))
    return deviation


@guarantee(1.0)
def samples_follow_quadrature() -> float:
    """χ² over its critical value at p = 10⁻³, of two pixels in 36 cells; with and without x_o."""
    excess, edges = 0.0, torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    for circuit, given in itertools.product(circuits_of(3), (False, True)):
        x, observed = some_image(3), torch.tensor([False, given, False])
        if given:
            images, both = x.expand(2000, 3), torch.stack([~observed, observed])
            drawn = circuit.completions(images, both, [seeded(6), seeded(5)]).samples[1]
        else:
            drawn = circuit.sample(2000, seeded(5)).double()
        seen = torch.tensor([False, True, False])
        points, _ = quadrature(x, seen, 0.025)
        points = points + 0.0125  # midpoints of cells between which the edges lie
        points[:, 1] = x[1]
        density = circuit.log_prob(points, ~seen if not given else None).softmax(0)
        cells = [
            torch.bucketize(part[:, [0, 2]], edges) @ torch.tensor([6, 1])
            for part in (drawn, points)
        ]
        counts = torch.bincount(cells[0], minlength=36).double()
        expected = 2000 * torch.zeros(36, dtype=torch.float64).index_add_(0, cells[1], density)
        excess = worst(excess, chi_square(counts, expected))
    return excess


@guarantee(ROUNDING)
def mode_is_as_good_as_a_grid_search() -> float:
    """Nats by which a state on the grid, or at the means of a component, beats ours in the largest
    term of p(x_u, s | x_o)."""
    excess = -math.inf
    for d in (2, 3):
        x = some_image(d)
        unlike = quad_tree_of((d, 1), 2, 3, 1, 0.05, seed=4)  # of classes that differ in scale
        circuits = [*circuits_of(d, 0.05), unlike]
        for circuit, observed in itertools.product(circuits, masks(d)[:-1]):
            ours = circuit.conditional_mode(x[None], observed)
            assert torch.equal(ours[0, observed], x[observed]), "an observed pixel was changed"
            points, _ = quadrature(x, observed, SEARCH_STEPS[(~observed).sum().item()])
            means = torch.where(observed, x, explicit(circuit)[1])
            best = terms(circuit, torch.cat([points, means])).max().item()
            excess = worst(excess, best - terms(circuit, ours).max().item())
    return worst(excess, 0.0)


# grey levels


def of_levels(circuit, n_levels: int):
    circuit.levels = n_levels
    return circuit


@guarantee(1e-7)
def grey_levels_are_integrals_of_the_density() -> float:
    """log P(v) in nats of all images of 5 levels, the tails in the end bins: Gauss–Legendre."""
    nodes, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(60))
    edges, deviation = torch.tensor([-5, 0.2, 0.4, 0.6, 0.8, 6], dtype=torch.float64), 0.0
    half = (edges.diff() / 2)[:, None]
    points, masses = (edges[:-1, None] + half * (1 + nodes)).flatten(), (half * weights).flatten()
    for d in (1, 2):
        x = torch.cartesian_prod(*[points] * d).view(-1, d)
        volume = torch.cartesian_prod(*[masses] * d).view(-1, d).prod(1)
        images = torch.cartesian_prod(*[torch.arange(5)] * d).view(-1, d).to(torch.uint8)
        for circuit in circuits_of(d):
            density = (circuit.log_prob(x).exp() * volume).view([5, 60] * d)
            expected = density.sum([2 * n + 1 for n in range(d)]).flatten().log()
            found = of_levels(circuit, 5).log_prob_discrete(images)
            deviation = worst(deviation, largest(found, expected))
    return deviation


@guarantee(ROUNDING)
def grey_levels_sum_to_one() -> float:
    """|Σ_v P(v) − 1| over all images of two and of seven levels; broad and narrow deviations."""
    deviation = 0.0
    for d, n_levels, smallest in itertools.product((1, 2, 3), (2, 7), (0.25, 1e-3)):
        images = torch.cartesian_prod(*[torch.arange(n_levels)] * d).view(-1, d).to(torch.uint8)
        for circuit in circuits_of(d, smallest):
            total = of_levels(circuit, n_levels).log_prob_discrete(images).exp().sum().item()
            deviation = worst(deviation, abs(total - 1))
    return deviation


def log_mass_of_bins(v: np.ndarray, means: np.ndarray, stds: np.ndarray) -> np.ndarray:
    """log P of 256 grey levels by scipy.stats.norm, the tails in the end bins."""
    low = np.where(v > 0, (v / 256 - means) / stds, -np.inf)
    high = np.where(v < 255, ((v + 1) / 256 - means) / stds, np.inf)
    with np.errstate(divide="ignore"):
        within = np.log(norm.cdf(high) - norm.cdf(low))
        right = norm.logsf(low) + np.log1p(-np.exp(norm.logsf(high) - norm.logsf(low)))
        left = norm.logcdf(high) + np.log1p(-np.exp(norm.logcdf(low) - norm.logcdf(high)))
    return np.where(low > 0, right, np.where(high < 0, left, within))


def terms_of_levels(log_weights: Tensor, means: Tensor, stds: Tensor, v: Tensor) -> Tensor:
    """log w_n P_n(v) [B, N], component by component and pixel by pixel."""
    parameters = means.double().numpy(), stds.double().numpy()
    of_components = [log_mass_of_bins(image.numpy(), *parameters).sum(1) for image in v]
    return torch.from_numpy(np.stack(of_components)) + log_weights


@guarantee(0.0)
def no_grey_levels_are_above_their_bound() -> float:
    """Nats by which log P_n(v) exceeds the bound that tells which components matter.

    Of 256 levels at deviations from 10⁻³ to 1 and means in and around [0, 1], over thirty pixels
    and over one, where rounding leaves the bound least room.
    """
    excess, g = 0.0, seeded(12)
    for d in (1, 30):
        means = 1.4 * torch.rand(40, d, generator=g) - 0.2
        means[:20] = torch.where(torch.rand(20, d, generator=g) < 0.5, 0.002, means[:20])
        log_stds = torch.empty(40, d).uniform_(math.log(1e-3), 0, generator=g)
        v = torch.randint(256, (300, d), dtype=torch.uint8, generator=g)
        exact = terms_of_levels(torch.zeros(40), means, log_stds.double().exp(), v)
        upper = Chunk(means, log_stds, 256).upper(v)
        excess = worst(excess, (exact - upper).max().item())
    return excess


@guarantee(1e-6)
def grey_levels_on_mnist_are_exact() -> float:
    """Bits per dimension against direct float64, by every way there is.

    At σ = 10⁻³, where a bin is 3.9 σ wide and can lie a thousand of them away, and at deviations up
    to 0.3; many components that compete closely and few; stored, streamed, as prefixes; and an
    EiNet and a quad-tree.
    """
    v, deviation = (mnist() * 256).to(torch.uint8), 0.0
    for n, spread, widest in ((20, 1e-4, 1.0), (20, 0.02, 300.0), (3, 0.05, 10.0)):
        means, log_stds = narrow(n, spread)
        wider = torch.rand(log_stds.shape, generator=seeded(11))
        log_stds = torch.where(means > 0.02, log_stds + wider * math.log(widest), log_stds)
        log_weights = (3 * torch.randn(len(means), generator=seeded(9))).double().log_softmax(0)
        exact = terms_of_levels(log_weights, means, log_stds.double().exp(), v)
        mixture = of_levels(Mixture(log_weights, means, log_stds), 256)
        streamed = of_levels(StreamedMixture(log_weights, mixture.components), 256)
        for circuit in (mixture, streamed):
            found = circuit.log_prob_discrete(v)
            deviation = worst(deviation, largest(found, exact.logsumexp(1)))
        sizes = [3, len(means) // 2, len(means)]
        prefixes = mixture.prefix_log_prob_discrete(v, sizes, log_weights[None])[0]
        for size, found in zip(sizes, prefixes, strict=True):
            first = exact[:, :size].logsumexp(1) - log_weights[:size].logsumexp(0)
            deviation = worst(deviation, largest(found, first))
    for model in (einet_of((28, 28), 2, 14), quad_tree_of((28, 28), 1)):
        copied = mnist()[: model.size].double()[:, model.leaves.pixels].transpose(0, 1)
        model.leaves.means.copy_(copied)
        model.leaves.stds.fill_(1e-3)
        flat = expanded(model) if isinstance(model, EiNet) else expanded_tree(model)[:3]
        found = of_levels(model, 256).log_prob_discrete(v)
        deviation = worst(deviation, largest(found, terms_of_levels(*flat, v).logsumexp(1)))
    return deviation / (784 * math.log(2))


# EM, compiled mixtures, counts


def pictures(n: int) -> Tensor:
    """Two kinds of 4×4 images, a lit left or right half, with noise; float64 in [0, 1)."""
    g = seeded(8)
    lit = torch.rand(n, 1, generator=g) < 0.3
    means = torch.where(lit == (torch.arange(16) % 4 < 2), 0.75, 0.25)
    return (means + 0.1 * torch.randn(n, 16, generator=g)).clamp(0, 0.999).double()


@guarantee(ROUNDING)
def em_never_lowers_the_likelihood() -> float:
    """The largest loss of mean log-likelihood in 20 full steps, nats per image."""
    x, lost = pictures(120), 0.0
    for size in (1, 3):
        model = einet_of((4, 4), size, 2)
        before = -math.inf
        for _ in range(20):
            counts = einet.zero_counts(model)
            after = model.count(x, counts).mean().item()
            lost, before = worst(lost, before - after), after
            einet.update(model, counts, 1.0)
        tree, before = quad_tree_of((4, 4), size), -math.inf
        for _ in range(20):
            counts = tree.zero_counts()
            after = tree.count(x, counts).mean().item()
            lost, before = worst(lost, before - after), after
            quad_tree.update(tree, counts, 1.0)
    torch.manual_seed(0)
    mixture, before = gmm.build((4, 4), gmm.Settings(size=5)).double(), -math.inf
    mixture.means.copy_(x[:5])
    counts = gmm.zero_counts(mixture)
    for _ in range(20):
        after = mixture.count(x, counts).mean().item()
        lost, before = worst(lost, before - after), after
        gmm.update(mixture, counts)
    return lost


@guarantee(ROUNDING)
def compiled_mixture_is_that_of_its_points() -> float:
    """A circuit of CM against its integration points, decoded one at a time; in nats."""
    small = settings.ContinuousMixture(latent_dimension=3, channels=(6, 4, 2), points=32, chunk=8)
    torch.manual_seed(0)
    model = continuous_mixture.build((8, 8), small).double()
    x = torch.rand(5, 64, generator=seeded(1), dtype=torch.float64)
    for seed in range(3):  # batch norm gets statistics of its own
        model.loss(x, seeded(seed))
    found = continuous_mixture.circuit(model, 20, seeded(9)).log_prob(x)
    points = continuous_mixture.normal_points(20, 3, seeded(9))
    model.eval()
    decoded = [model.decode(point[None]) for point in points]
    log_likelihoods = [Normal(mean, log_std.exp()).log_prob(x).sum(1) for mean, log_std in decoded]
    return largest(found, torch.stack(log_likelihoods).logsumexp(0) - math.log(20))


@guarantee(0.0)
def parameters_are_those_of_a_walk() -> float:
    """n_parameters against a walk of the exported circuit: 2 a Gaussian leaf, fan-in − 1 a sum."""
    deviation = 0
    circuits = [mixture_of(7, 5), einet_of((2, 3), 4), einet_of((4, 6), 3, 2), einet_of((1, 2), 2)]
    for circuit in circuits:
        walked = 0
        for module in to_spflow(circuit).modules():
            if isinstance(module, SpflowNormal):
                walked += 2 * module.loc.numel()
            elif hasattr(module, "logits"):
                units = module.weights.sum().round().int().item()  # each unit's weights sum to 1
                walked += module.logits.numel() - units
        deviation = worst(deviation, abs(circuit.n_parameters - walked))
    return float(deviation)


# real MNIST images at the smallest deviation


def mnist() -> Tensor:
    """Sixteen MNIST test images, dequantised [16, 784] float32: all digits, thick and thin ones."""
    with np.load(Path(__file__).with_name("mnist.npz")) as stored:
        images = torch.from_numpy(stored["images"])
    return ((images + torch.rand(images.shape, generator=seeded(6))) / 256).clamp(max=1 - 2**-24)


def narrow(n: int, spread: float) -> tuple[Tensor, Tensor]:
    """n components at σ = 10⁻³ near each image: means and log deviations [16 n, 784]."""
    x = mnist()
    near = x + 1.5e-3 * torch.randn(x.shape, generator=seeded(7))
    means = near + spread * torch.randn(n, *x.shape, generator=seeded(8))
    means = means.flatten(0, 1).clamp(0, 1)
    return means, torch.full_like(means, math.log(1e-3))


def directly(
    log_weights: Tensor, means: Tensor, stds: Tensor, x: Tensor, observed: Tensor
) -> Tensor:
    """log p(x_o) [B] by torch.distributions.MixtureSameFamily in float64, image by image."""
    values = []
    for image, mask in zip(x.double(), observed.expand(x.shape), strict=True):
        normal = Independent(Normal(means[:, mask].double(), stds[:, mask].double()), 1)
        values.append(
            MixtureSameFamily(Categorical(logits=log_weights), normal).log_prob(image[mask])
        )
    return torch.stack(values)


@guarantee(1e-6)
def log_likelihoods_on_mnist_are_exact() -> float:
    """Bits per dimension against direct float64, at σ = 10⁻³ and by every way there is.

    Many components that compete closely, few that matter, and few; stored, streamed, as prefixes;
    all pixels, a mask for all images and one for each, many masks at once; and an EiNet.
    """
    x, deviation = mnist(), 0.0
    masks = torch.rand(12, 784, generator=seeded(10)) < 0.5  # many, so that products pay
    each = torch.rand(x.shape, generator=seeded(8)) < 0.5
    observations = (torch.ones(784, dtype=torch.bool), each[0], each)
    for n, spread in ((70, 1e-4), (20, 0.05), (3, 1e-4)):
        means, log_stds = narrow(n, spread)
        log_weights = (3 * torch.randn(len(means), generator=seeded(9))).double().log_softmax(0)
        mixture = Mixture(log_weights, means, log_stds)
        decoded = DecodedComponents(
            lambda index, m=means, s=log_stds: (m[index], s[index]), len(means), 784, x.device
        )
        streamed = StreamedMixture(log_weights, decoded)
        for observed in observations:
            exact = directly(log_weights, means, log_stds.double().exp(), x, observed)
            sizes = [3, min(100, len(means) - 1), len(means)]
            prefix = mixture.prefix_log_prob(x, sizes, log_weights[None], observed)
            found = [mixture.log_prob(x, observed), streamed.log_prob(x, observed), prefix[0, 2]]
            deviation = worst(deviation, *(largest(part, exact) for part in found))
        for observed, found in zip(masks, mixture.marginals(x, masks), strict=True):
            exact = directly(log_weights, means, log_stds.double().exp(), x, observed)
            deviation = worst(deviation, largest(found, exact))
        first = log_weights[: sizes[1]].log_softmax(0)
        exact = directly(first, means[: sizes[1]], log_stds[: sizes[1]].double().exp(), x, each)
        deviation = worst(deviation, largest(prefix[0, 1], exact))
    model = einet_of((28, 28), 2, 14)
    model.leaves.stds.fill_(1e-3)
    model.leaves.means.copy_(x[:2].double()[:, model.leaves.pixels].transpose(0, 1))
    flat = expanded(model)
    for observed in observations:
        exact = directly(*flat, x, observed)
        deviation = worst(deviation, largest(model.log_prob(x, observed), exact))
    return deviation / (784 * math.log(2))


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, (_, allowed) in GUARANTEES.items():
        print(f"{name:60} {hold(name):9.2g}  allowed {allowed:g}", flush=True)
