"""Streams of random numbers: fixed by seed and purpose, and by nothing else."""

import hashlib
import itertools

import numpy as np
import torch

from vqdistill.randomness import derived_seed, generator

PURPOSES = ("noise test", "noise train", "training cm", "selection dmbs 64", "selection dmbs 6", "")


def test_a_seed_is_the_first_63_bits_of_a_digest():
    digest = hashlib.sha256(b"3/noise test").hexdigest()
    assert derived_seed(3, "noise test") == int(digest[:16], 16) // 2


def test_seeds_fit_both_libraries():
    for seed, purpose in itertools.product(range(200), PURPOSES):
        value = derived_seed(seed, purpose)
        assert 0 <= value < 2**63
    torch.Generator().manual_seed(2**63 - 1)
    np.random.default_rng(2**63 - 1)


def test_every_seed_and_purpose_has_its_own_stream():
    pairs = list(itertools.product(range(100), PURPOSES))
    assert len({derived_seed(*pair) for pair in pairs}) == len(pairs)
    draws = {tuple(torch.rand(4, generator=generator(*pair)).tolist()) for pair in pairs}
    assert len(draws) == len(pairs)


def test_a_stream_does_not_depend_on_what_was_drawn_elsewhere():
    first = torch.rand(5, generator=generator(7, "noise"))
    torch.manual_seed(123)
    torch.rand(10)
    assert torch.equal(torch.rand(5, generator=generator(7, "noise")), first)


def test_a_stream_leaves_the_global_one_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    torch.rand(9, generator=generator(7, "noise"))
    assert torch.equal(torch.rand(3), expected)
