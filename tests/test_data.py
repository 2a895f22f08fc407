"""Split, fixed noise and batches; what becomes of damaged or missing datasets."""

import gzip
import hashlib
import math
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import refusal, seeded
from sklearn.datasets import load_digits

from vqdistill import data
from vqdistill.datasets import DATA_VARIABLE, DATASETS, folder_of
from vqdistill.files import write_arrays


@pytest.fixture(scope="module")
def digits():
    return data.prepare_dataset("digits", None, noise_seed=3, training_part=200)


@pytest.fixture(scope="module")
def images(digits, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "images.npz"
    write_arrays(path, digits)
    return data.load(path)


# prepare and load


def test_every_digit_is_in_one_split(digits):
    raw = digits["train_images"]
    assert raw.shape == (1197, 8, 8)
    assert raw.dtype == np.uint8
    levels = {"train": raw}
    for split in ("validation", "test"):
        x = digits[f"{split}_x"]
        assert x.shape == (300, 8, 8)
        levels[split] = np.floor(x.astype(np.float64) * 17).astype(np.uint8)
    found = np.concatenate([levels[split].reshape(-1, 64) for split in levels])
    labels = np.concatenate([digits[f"{split}_labels"] for split in levels])
    published = load_digits()
    expected = np.concatenate([published.data, published.target[:, None]], 1)
    assert sorted(map(tuple, np.column_stack([found, labels]))) == sorted(map(tuple, expected))


def test_evaluated_images_are_dequantised_in_the_unit_interval(digits):
    raw, x = digits["train_images"][:200].astype(np.float64), digits["train_x"].astype(np.float64)
    assert digits["train_x"].dtype == np.float32
    noise = 17 * x - raw
    assert noise.min() > -1e-5
    assert noise.max() < 1 + 1e-5
    assert x.min() >= 0
    assert x.max() < 1
    assert abs(noise.mean() - 0.5) < 4 / math.sqrt(12 * noise.size)
    assert abs(noise.var() - 1 / 12) < 0.002


def test_the_largest_noise_stays_below_one():
    top = np.full(3, 255), np.array([0.0, 0.5, np.nextafter(1, 0)])
    x = data.dequantised(*top, 256)
    assert x.dtype == np.float32
    assert x.max() < 1
    np.testing.assert_allclose(x, [255 / 256, 255.5 / 256, 1], atol=1e-6)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_no_noise_reaches_the_next_grey_level(levels):
    grey = np.arange(levels, dtype=np.uint8)
    x = data.dequantised(grey, np.full(levels, np.nextafter(1, 0)), levels)
    np.testing.assert_array_equal(data.to_images(x, levels), grey)


def test_noise_is_fixed_by_its_seed_alone(digits):
    again = data.prepare_dataset("digits", None, noise_seed=3, training_part=100)
    other = data.prepare_dataset("digits", None, noise_seed=4, training_part=200)
    for split in ("test", "validation"):
        np.testing.assert_array_equal(again[f"{split}_x"], digits[f"{split}_x"])
        assert not np.array_equal(other[f"{split}_x"], digits[f"{split}_x"])
        np.testing.assert_array_equal(other[f"{split}_labels"], digits[f"{split}_labels"])
    np.testing.assert_array_equal(other["train_images"], digits["train_images"])
    np.testing.assert_array_equal(again["train_x"], digits["train_x"][:100])
    whole = data.prepare_dataset("digits", None, noise_seed=3, training_part=200)
    assert str(whole["checksum"]) == str(digits["checksum"])
    assert len({str(arrays["checksum"]) for arrays in (digits, again, other)}) == 3


def test_splits_have_noise_of_their_own(digits):
    fractions = [np.mod(17 * digits[f"{s}_x"][:200].astype(np.float64), 1) for s in data.EVALUATED]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        correlation = np.corrcoef(fractions[i].ravel(), fractions[j].ravel())[0, 1]
        assert abs(correlation) < 5 / math.sqrt(fractions[0].size)


def test_loaded_images(digits, images):
    assert (images.dataset, images.levels, images.shape) == ("digits", 17, (8, 8))
    assert images.checksum == str(digits["checksum"])
    assert images.train.shape == (1197, 64)
    assert images.train.dtype == torch.uint8
    assert images.train_labels.shape == (1197,)
    assert {split: tuple(x.shape) for split, x in images.evaluated.items()} == {
        "test": (300, 64), "validation": (300, 64), "train": (200, 64)
    }  # fmt: skip
    for split, x in images.evaluated.items():
        assert x.dtype == torch.float32
        assert len(images.labels[split]) == len(x)
        assert images.labels[split].dtype == torch.int64
        row_major = digits[f"{split}_x"][5].reshape(64)
        np.testing.assert_array_equal(x[5].numpy(), row_major)


def test_an_unknown_dataset():
    assert re.search("cifar.*mnist", refusal(data.prepare_dataset, "cifar", None, 0, 10))


# bits per dimension


def test_bits_per_dimension_by_hand():
    assert data.bits_per_dimension(0.0, 784, 256) == pytest.approx(8.0)
    assert data.bits_per_dimension(-784 * math.log(2), 784, 256) == pytest.approx(9.0)
    # one pixel, density 32: 2^-5 of a grey level's width is 8 bits − 5 bits
    assert data.bits_per_dimension(math.log(32), 1, 256) == pytest.approx(3.0)
    assert data.bits_per_dimension(10.0, 64, 17) == pytest.approx(
        -10 / 64 / 0.6931471805599453 + 4.087462841250339
    )


def test_the_uniform_density_of_a_level_is_lossless_coding():
    """A density that is 17 on the pixel's own level costs no bits, 1 everywhere costs log₂ 17."""
    assert data.bits_per_dimension(64 * math.log(17), 64, 17) == pytest.approx(0.0, abs=1e-12)


# batches


def level_of(x, levels):
    return (x.double() * levels).floor().to(torch.uint8)


@pytest.mark.parametrize("with_classes", [False, True])
def test_batches_show_every_image_once_with_new_noise(with_classes):
    raw = torch.arange(23, dtype=torch.uint8)[:, None] * torch.ones(1, 4, dtype=torch.uint8)
    classes = torch.arange(23) if with_classes else None
    batches = data.Batches(raw, 256, 5, classes)
    assert len(batches) == 5
    generator, passes = seeded(), []
    for _ in range(2):
        parts = list(batches(generator))
        assert [len(p[0] if with_classes else p) for p in parts] == [5, 5, 5, 5, 3]
        if with_classes:
            for x, c in parts:
                assert torch.equal(level_of(x, 256)[:, 0].long(), c)
            parts = [x for x, _ in parts]
        x = torch.cat(parts)
        assert x.dtype == torch.float32
        levels = level_of(x, 256)
        order = levels[:, 0].argsort()
        assert torch.equal(levels[order], raw)
        assert not torch.equal(levels, raw)  # in another order
        passes.append((levels, x[order]))
    assert not torch.equal(passes[0][0], passes[1][0])
    assert not (passes[0][1] == passes[1][1]).any()


def test_the_same_generator_gives_the_same_batches(images):
    batches = data.Batches(images.train, 17, 100)
    first, again, other = (torch.cat(list(batches(seeded(s)))) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_code_batches_keep_codes_and_classes_together():
    codes = torch.arange(11)[:, None, None].expand(11, 2, 2)
    batches = data.CodeBatches(codes, torch.arange(11) + 100, 4)
    assert len(batches) == 3
    parts = list(batches(seeded()))
    assert [len(z) for z, _ in parts] == [4, 4, 3]
    z, c = (torch.cat(column) for column in zip(*parts, strict=True))
    assert torch.equal(z[:, 0, 0] + 100, c)
    assert torch.equal(c.sort().values, torch.arange(11) + 100)
    assert not torch.equal(c, torch.arange(11) + 100)


def test_training_noise_is_uniform():
    x = data.with_noise(torch.full((100, 100), 7, dtype=torch.uint8), 17, seeded())
    noise = 17 * x.double() - 7
    assert noise.min() > -1e-5
    assert noise.max() < 1 + 1e-5
    assert abs(noise.mean() - 0.5) < 4 / math.sqrt(12 * noise.numel())


def test_training_images_stay_below_one():
    """255 + u is rounded to 256 in float32 for one u in some hundred thousand."""
    x = data.with_noise(torch.full((2000, 784), 255, dtype=torch.uint8), 256, seeded())
    assert x.max() < 1


# MNIST on disk


NAMES = tuple(data.MNIST_SHA256)


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_idx(root, kind="MNIST", n=6):
    """Tiny files in the format and at the place of the published ones; returns their folder."""
    raw = root / kind / "raw"
    raw.mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in NAMES:
        shape = (n, 28, 28) if "images" in name else (n,)
        (raw / name).write_bytes(idx(random.integers(0, 10, shape)))
    return raw


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """No network: torchvision finds what is there, or fails as it does without a connection."""
    from torchvision import datasets

    def download(self):
        Path(self.raw_folder).mkdir(parents=True, exist_ok=True)
        if not self._check_exists():
            raise RuntimeError("Error downloading train-images-idx3-ubyte.gz:\nTried mirrors")

    monkeypatch.setattr(datasets.MNIST, "download", download)
    monkeypatch.delenv(DATA_VARIABLE, raising=False)


def refused(dataset, root):
    return refusal(data.prepare_dataset, dataset, None if root is None else str(root), 0, 5)


@pytest.mark.parametrize(
    ("dataset", "kind"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")]
)
def test_a_missing_folder(tmp_path, dataset, kind):
    message = refused(dataset, tmp_path)
    assert message.startswith("data.root: ")
    assert str(tmp_path / kind / "raw") in message
    assert "Error downloading" in message


def test_the_folder_of_the_environment_variable(tmp_path, monkeypatch):
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "shared"))
    assert str(tmp_path / "shared") in refused("mnist", None)
    assert str(tmp_path / "own") in refused("mnist", tmp_path / "own")


@pytest.mark.parametrize("name", NAMES)
def test_one_missing_file(tmp_path, name):
    (write_idx(tmp_path) / name).unlink()
    assert str(tmp_path) in refused("mnist", tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x00\x00\x08\x03\x00\x00", b"<html>404</html>" * 50])
def test_a_file_that_is_none(tmp_path, content):
    raw = write_idx(tmp_path)
    (raw / NAMES[0]).write_bytes(content)
    assert str(tmp_path) in refused("mnist", tmp_path)


def test_a_truncated_file(tmp_path):
    path = write_idx(tmp_path) / NAMES[0]
    path.write_bytes(path.read_bytes()[:-100])
    assert str(tmp_path) in refused("mnist", tmp_path)


def test_other_images_than_the_published_ones(tmp_path):
    message = refused("mnist", write_idx(tmp_path).parent.parent)
    assert NAMES[0] in message
    assert "checksum" in message
    assert "delete it" in message


def test_too_few_images_of_a_right_checksum(tmp_path, monkeypatch):
    raw = write_idx(tmp_path)
    sums = {name: hashlib.sha256((raw / name).read_bytes()).hexdigest() for name in NAMES}
    monkeypatch.setattr(data, "MNIST_SHA256", sums)
    message = refused("mnist", tmp_path)
    assert "(6, 28, 28)" in message
    assert "(60000, 28, 28)" in message


def test_fashion_mnist_needs_its_archives(tmp_path):
    raw = write_idx(tmp_path, "FashionMNIST")
    assert "verified" in refused("fashion_mnist", tmp_path)
    for name in NAMES:
        (raw / f"{name}.gz").write_bytes(gzip.compress((raw / name).read_bytes()))
    assert "checksum" in refused("fashion_mnist", tmp_path)


@pytest.fixture
def own_images(monkeypatch):
    """own_images(train labels, test labels): MNIST of as many images, the last 10 held out."""

    def replace(train, test, dtype=np.uint8):
        def images(labels):
            return np.arange(len(labels) * 784).astype(dtype).reshape(-1, 28, 28)

        found = tuple((images(part), np.array(part)) for part in (train, test))
        monkeypatch.setattr(data, "_published_images", lambda *_: found)
        known = DATASETS["mnist"]._replace(n_train=20, n_held_out=10)
        monkeypatch.setitem(DATASETS, "mnist", known)

    return replace


TEN = [*range(10)]


def test_mnist_is_split_at_the_last_images(own_images):
    """The last 10,000 training images are for validation: here the last 10 of 30."""
    train, test = TEN[::-1] + TEN + TEN, TEN
    own_images(train, test)
    arrays = data.prepare_dataset("mnist", None, 0, 4)
    raw = np.arange(30 * 784).astype(np.uint8).reshape(-1, 28, 28)
    np.testing.assert_array_equal(arrays["train_images"], raw[:20])
    np.testing.assert_array_equal(arrays["train_labels"], train[:20])
    np.testing.assert_array_equal(arrays["validation_labels"], train[20:])
    assert arrays["train_x"].shape == (4, 28, 28)
    np.testing.assert_array_equal(np.floor(256 * arrays["validation_x"]), raw[20:])
    np.testing.assert_array_equal(np.floor(256 * arrays["test_x"]), raw[:10])
    assert DATASETS["fashion_mnist"][:4] == ((28, 28), 256, 50_000, 10_000)


@pytest.mark.parametrize(
    ("train", "test", "dtype", "named"),
    [
        (TEN + TEN[:8] + [10, 11] + TEN, TEN, np.uint8, "train labels: found classes [0, 1, 2"),
        ([0, 1, 2, *7 * [0]] * 3, TEN, np.uint8, "train labels: found classes [0, 1, 2], exp"),
        (3 * TEN, [0, *TEN[:9]], np.uint8, "test labels: found classes [0, 1, 2"),
        (2 * TEN, TEN, np.uint8, "train images of shape (10, 28, 28) with 10 labels, expected"),
        (3 * TEN, TEN, np.uint16, "train images of type uint16 up to"),
    ],
)
def test_images_that_are_not_what_is_known_of_them(own_images, train, test, dtype, named):
    """As of a dataset that was added, before anything is trained on them."""
    own_images(train, test, dtype)
    said = refused("mnist", None)
    assert said.startswith(f"data.dataset: mnist: {named}")


# where the files are


@pytest.mark.parametrize("deep", ["MNIST", "MNIST/raw"])
@pytest.mark.parametrize("by", ["root", "variable"])
def test_a_folder_too_deep_is_told_and_left_as_it_is(tmp_path, monkeypatch, deep, by):
    write_idx(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    if by == "variable":
        monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / deep))
    message = refused("mnist", tmp_path / deep if by == "root" else None)
    assert message.startswith("data.root: " if by == "root" else "$VQDISTILL_DATA: ")
    assert f"found {tmp_path / deep}, in which MNIST itself lies; name the folder" in message
    assert message.endswith(f" {tmp_path}")
    assert sorted(tmp_path.rglob("*")) == before


def test_files_that_lie_elsewhere_are_to_be_moved(tmp_path):
    write_idx(tmp_path).rename(tmp_path / "mine")
    assert f"move the files to {tmp_path}/mine/MNIST/raw" in refused("mnist", tmp_path / "mine")


@pytest.mark.parametrize("by", ["root", "variable"])
def test_a_home_folder_may_be_a_tilde(tmp_path, monkeypatch, by):
    monkeypatch.setenv("HOME", str(tmp_path))
    if by == "variable":
        monkeypatch.setenv(DATA_VARIABLE, "~/images")
    assert folder_of("mnist", "~/images" if by == "root" else None) == tmp_path / "images"
    assert folder_of("mnist", "~nobody-of-this-name/images") == Path("~nobody-of-this-name/images")


def test_a_failed_download_leaves_no_folder_and_tells_its_whole_cause(tmp_path):
    message = refused("mnist", tmp_path / "new/images")
    assert "(Error downloading train-images-idx3-ubyte.gz: Tried mirrors)" in message
    assert not list(tmp_path.iterdir())


# images in one's own code


GREY = np.random.default_rng(0).integers(0, 256, (5, 3, 4), dtype=np.uint8)


@pytest.mark.parametrize(
    "make",
    [
        np.array,
        torch.tensor,
        lambda grey: grey[::-1].copy()[::-1],
        lambda grey: np.frombuffer(grey.tobytes(), np.uint8).reshape(grey.shape),  # read-only
        lambda grey: torch.tensor(grey).flatten(1),
    ],
)
def test_prepared_images_lie_in_their_grey_levels_and_come_back(make):
    images = make(GREY)
    x = data.prepare(images)
    assert x.dtype == torch.float32
    assert x.shape == images.shape
    noise = x.double() * 256 - torch.tensor(GREY).view(x.shape)
    assert noise.min() >= 0
    assert noise.max() < 1
    assert noise.std() > 0.2
    for back in (data.to_images(x), data.to_images(x.numpy()), data.to_images(x.double())):
        assert back.dtype == np.uint8
        assert (back.reshape(GREY.shape) == GREY).all()


def test_noise_is_new_each_time_unless_a_generator_fixes_it():
    same = [data.prepare(GREY, generator=torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*same)
    assert not torch.equal(data.prepare(GREY), data.prepare(GREY))
    assert data.prepare(GREY[:0]).shape == (0, 3, 4)


def test_images_of_fewer_levels():
    x = data.prepare(GREY % 17, levels=17)
    assert (data.to_images(x, 17) == GREY % 17).all()
    assert "found grey level 255, expected all below levels = 17" in refusal(
        data.prepare, GREY | 255, 17
    )


def test_what_is_drawn_beyond_the_levels_is_cut():
    assert data.to_images(np.array([-0.5, 0.0, 0.999, 1.0, 7.0])).tolist() == [0, 0, 255, 255, 255]


@pytest.mark.parametrize(
    "images", [GREY.astype(float), GREY.astype(int), GREY[0, 0], torch.rand(2, 3), [[1, 2]], None]
)
def test_what_is_no_image_of_grey_levels_is_refused(images):
    assert "expected uint8, a NumPy array or a tensor" in refusal(data.prepare, images)


@pytest.mark.parametrize(
    "images", [GREY, torch.tensor(GREY), torch.tensor([math.nan]), np.array(["a"]), None]
)
def test_what_is_no_image_in_the_unit_interval_is_refused(images):
    assert "expected floating point without NaN" in refusal(data.to_images, images)
