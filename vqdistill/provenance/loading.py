"""Finished models back from their files, ready to be asked."""

import difflib
import re
from collections.abc import Callable
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from vqdistill import settings
from vqdistill.baselines import baseline_names, is_circuit, load_baseline, settings_of
from vqdistill.circuits.base import Circuit
from vqdistill.circuits.einet import EiNet
from vqdistill.circuits.mixture import Mixture
from vqdistill.circuits.quad_tree import QuadTree
from vqdistill.data import N_CLASSES, OfImages
from vqdistill.distillation import EXACT_METHOD, mixtures
from vqdistill.distillation.mixtures import distilled_mixture, exact_mixture
from vqdistill.distillation.selection import mean_over_classes
from vqdistill.errors import InputError
from vqdistill.files import array_names, read_arrays, read_tensors, readable
from vqdistill.models.classifier import Classifier
from vqdistill.models.pixelcnn import PixelCNN
from vqdistill.models.vqvae import VQVAE
from vqdistill.provenance.records import read_record
from vqdistill.randomness import generator

if TYPE_CHECKING:
    import pandas as pd

WEIGHTS = "weights.safetensors"
STUDENT = r"(\w+)-(\d+x\d+)-K(\d+)-(\d+)"  # names of what is learned from a teacher's samples
LISTED = "; vqdistill.models('{}') lists all"


def load_vqvae(path: str | Path, device: torch.device | str = "cpu") -> VQVAE:
    """A trained VQ-VAE, frozen and in evaluation mode."""
    return _load(path, device, settings.VQVAE, VQVAE)[0]


def load_prior(path: str | Path, device: torch.device | str = "cpu") -> PixelCNN:
    """A trained prior, frozen and in evaluation mode."""
    return _load(path, device, settings.Prior, lambda _, own: PixelCNN(own, N_CLASSES))[0]


def load_classifier(path: str | Path, device: torch.device | str = "cpu") -> Classifier:
    """The trained classifier, frozen and in evaluation mode."""
    kind = settings.Classifier
    return _load(path, device, kind, lambda shape, own: Classifier(shape, N_CLASSES, own))[0]


def images_of(path: str | Path) -> OfImages:
    """What a trained model's file tells of the images that it was trained on."""
    facts = read_tensors(path)[1]
    shape = tuple(facts["image_shape"])
    return OfImages(facts["dataset"], facts["data_checksum"], facts["levels"], shape)


def load_student(
    path: str | Path, device: torch.device | str = "cpu"
) -> tuple[Circuit, settings.Student]:
    """A circuit that was learned from a teacher's samples, and how."""
    weights, metadata = read_tensors(path)
    own = settings.parsed(settings.Student, metadata["settings"], path, "settings")
    kind = {"quad_tree": QuadTree, "mixture": Mixture}[own.circuit]
    circuit = kind.from_stored(weights, metadata).to(device)
    circuit.image_shape, circuit.levels = tuple(metadata["image_shape"]), metadata["levels"]
    return circuit, own


def load_baseline_circuit(
    path: str | Path, n_components: int, device: torch.device | str = "cpu"
) -> Circuit:
    """A trained baseline as a circuit, compiled to `n_components` if it is a mixture."""

    def build(shape: tuple[int, int], training: settings.BaselineTraining) -> torch.nn.Module:
        kind = settings_of(training.method)
        own = settings.parsed(kind, training.settings, path, "settings")
        return load_baseline(training.method).build(shape, own)

    model, metadata = _load(path, device, settings.BaselineTraining, build)
    method = metadata["settings"]["method"]
    if is_circuit(method):
        circuit = model
    else:
        if n_components < 1:
            raise InputError(f"n_components: found {n_components}, expected 1 or more of {method}")
        points = generator(metadata["seed"], f"components {method}")
        circuit = load_baseline(method).circuit(model, n_components, points)
    circuit.image_shape, circuit.levels = tuple(metadata["image_shape"]), metadata.get("levels")
    return circuit


def _load(
    path: str | Path, device: torch.device | str, kind: type[settings.Settings], build: Callable
) -> tuple[Any, dict[str, Any]]:
    """A trained model, frozen and in evaluation mode, and the metadata of its file.

    build(image shape, settings of `kind`): an untrained model.
    """
    if torch.device(device).type == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # its error would show at deviations of 1e-3
    weights, metadata = read_tensors(path)
    own = settings.parsed(kind, metadata["settings"], path, "settings")
    model = build(tuple(metadata["image_shape"]), own)
    try:
        model.load_state_dict(weights)
    except RuntimeError:
        raise InputError(f"{path}: holds the weights of another model; train it again") from None
    model.levels = metadata.get("levels")  # not of older files
    return model.to(device).eval().requires_grad_(False), metadata


class Latents(NamedTuple):
    """What `distil` wrote of one method."""

    path: str | Path
    arrays: dict[str, Tensor]

    @property
    def log_prob_of_all(self) -> Tensor:
        """log p(z) [K^HW] of the exact model's latents, in lexicographic order, the last position
        fastest."""
        return self.arrays["log_prob"]

    @property
    def log_prob_of_all_by_class(self) -> Tensor | None:
        """log p(z|c) [K^HW, C] of these; None where they were too many to be kept."""
        return self.arrays.get("log_prob_by_class")

    @property
    def sizes(self) -> list[int]:
        """The N for which latents were selected; each of the first n is a selection where there
        is one N."""
        names = (name for name in self.arrays if name.startswith("codes_"))
        return sorted(int(name.removeprefix("codes_")) for name in names)

    def first(self, n_components: int) -> tuple[Tensor, Tensor]:
        """Codes [N, H, W] and log p(z|c) [N, C] of N selected latents. InputError if there are
        none."""
        sizes = self.sizes
        if n_components not in sizes and (len(sizes) != 1 or not 0 < n_components <= sizes[0]):
            raise InputError(
                f"{self.path}: no {n_components} components; expected {_listed(sizes)}"
            )
        n = n_components if n_components in sizes else sizes[0]
        arrays = (self.arrays[f"{kind}_{n}"] for kind in ("codes", "log_prob_by_class"))
        return tuple(array[:n_components] for array in arrays)


def read_latents(path: str | Path) -> dict[str, Latents]:
    """The latents of a teacher by method, as `distil` wrote them."""
    latents: dict[str, Latents] = {}
    for name, array in read_arrays(path).items():
        method, _, kind = name.partition("/")
        of_method = latents.setdefault(method, Latents(path, {}))
        of_method.arrays[kind] = torch.from_numpy(array)
    return latents


def check_same_training(vqvae: Path, latents: Path) -> None:
    """InputError where latents were selected from the codes of another training of a VQ-VAE, as the
    records beside the files say; nothing is said where there are none."""
    records = [path.with_name("record.json") for path in (vqvae, latents)]
    if all(record.exists() for record in records):
        trained, selected = (read_record(record)["files"] for record in records)
        codes = {digest for file, digest in trained.items() if file.endswith("codes.npz")}
        if not codes & {*selected.values()}:
            raise InputError(
                f"{latents}: selected from another training than {vqvae}; run the experiment to its"
                " end first"
            )


def load(
    run: str | Path,
    method: str = "",
    *,
    grid: str = "",
    codebook_size: int = 0,
    size: int = 0,
    n_components: int = 0,
    weights: str = "",
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Circuit:
    """A tractable model of a finished run, or of a file that `model.save` wrote.

    load('results/quick', 'dmbs', grid='4x4', codebook_size=32, n_components=256) and
    load('model.safetensors') are examples; `vqdistill.models('results/quick')` lists what a run
    has. Distilled models ('dmrs', 'dmbs', …) need grid, codebook_size and n_components; 'exm' grid
    and codebook_size; 'deep' these and size; 'cm' n_components; 'einet', 'quad_tree' and 'gmm'
    size. weights, of models of a VQ-VAE:
    'uniform' (Eq. 2, what distilled models have unless told otherwise) or 'prior' (Eq. 1, what
    'exm' has). Raises InputError where there is no such model, in a line that says what there is,
    and where the latents were selected from another training of the VQ-VAE.
    """
    run = Path(run).expanduser()
    asked = {"grid": grid, "codebook_size": codebook_size, "size": size}
    _check_device(device)
    if run.is_file() or run.suffix == ".safetensors":
        if method or n_components or weights or any(asked.values()):
            raise InputError(f"{run}: a file of one model; expected no argument but `device`")
        return _load_file(run, device)
    if weights not in ("", "uniform", "prior"):
        raise InputError(f"weights: found {weights!r}, expected 'uniform' or 'prior'")
    found = _only(_available(run), run, {"method": method, **asked, "seed": seed})
    if not isinstance(n_components, Integral) or bool(n_components) != bool(found.n_components):
        raise InputError(
            f"n_components: found {n_components!r}, expected {found.n_components or 'none'} of"
            f" {method} in {run}"
        )
    if weights and (found.size or not found.grid):
        raise InputError(f"weights: found {weights!r}, expected none: {method!r} has its own")
    if found.grid and found.size:
        name = f"{method}-{grid}-K{codebook_size}-{size}"
        return load_student(run / "models" / name / f"seed-{seed}" / WEIGHTS, device)[0]
    if found.grid:
        return _load_distilled(run, found, n_components, weights, device)
    name = f"{method}-{size}" if size else method
    path = run / "models" / name / f"seed-{seed}" / WEIGHTS
    return load_baseline_circuit(path, n_components, device)


def models(run: str | Path) -> "pd.DataFrame":
    """What `load` can load of a run: a row for each method, with its VQ-VAE or size.

    The columns are arguments of `load`; `n_components` and `seed` say which there are.
    """
    import pandas as pd

    table = pd.DataFrame(_available(Path(run).expanduser()))
    keys = [column for column in table.columns if column != "seed"]
    return table.groupby(keys, as_index=False).agg(
        {"seed": lambda seeds: ", ".join(map(str, seeds))}
    )


class Available(NamedTuple):
    """A model of a run, as `load` is asked for it; what it doesn't have is empty or 0."""

    method: str
    grid: str
    codebook_size: int
    size: int
    seed: int
    n_components: str  # which there are, such as '1 to 256'


def _available(run: Path) -> list[Available]:
    """All models of a run. InputError where there are none."""
    found = []
    for path in run.glob("latents/*/seed-*/latents.npz"):
        teacher, seed = path.parts[-3:-1]
        if (run / f"models/vqvae-{teacher}" / seed / "weights.safetensors").exists():
            grid, _, size = teacher.partition("-K")
            for method, sizes in _stored_sizes(path).items():
                keys = (method, grid, int(size), 0, int(seed.removeprefix("seed-")))
                found.append(Available(*keys, _listed(sizes)))
    for path in run.glob("models/*/seed-*/weights.safetensors"):
        name, seed = path.parts[-3], int(path.parts[-2].removeprefix("seed-"))
        method, _, size = name.partition("-")
        if student := re.fullmatch(STUDENT, name):
            method, grid, codebook_size, size = student.groups()
            found.append(Available(method, grid, int(codebook_size), int(size), seed, ""))
        elif method in baseline_names():
            of_mixtures = "" if is_circuit(method) else "1 or more"
            found.append(Available(method, "", 0, int(size or 0), seed, of_mixtures))
    if not found:
        saved = next(iter(sorted(map(str, run.glob("models/*.safetensors")))), "model.safetensors")
        raise InputError(
            f"{run}: no trained models there; expected the folder of a run, such as results/quick,"
            f" or a file that model.save wrote, such as {saved}"
        )
    return sorted(found)


def _stored_sizes(path: Path) -> dict[str, list[int]]:
    """The numbers of components for which latents were selected, by method."""
    sizes: dict[str, list[int]] = {}
    for name in array_names(path):
        method, _, kind = name.partition("/")
        of_method = sizes.setdefault(method, [])
        if kind.startswith("codes_"):
            of_method.append(int(kind.removeprefix("codes_")))
    return sizes


def _listed(sizes: list[int]) -> str:
    """Which numbers of components there are: the first n of a single selection are models too."""
    if len(sizes) == 1:
        return f"1 to {sizes[0]}"
    return ", ".join(map(str, sorted(sizes)))


def _only(models: list[Available], run: Path, asked: dict[str, Any]) -> Available:
    """The one that is asked for, key by key. InputError, with what there is, at the first key that
    doesn't fit."""
    for key, value in asked.items():
        known = sorted({getattr(model, key) for model in models})
        if value not in known:
            of = f"of {asked['method']} in {run}" if key != "method" else f"in {run}"
            expected = ", ".join(repr(each) for each in known if each or key == "seed") or "none"
            hint = ""
            if isinstance(value, str) and (near := difflib.get_close_matches(value, known, 1)):
                hint = f"; did you mean {near[0]!r}?"
            raise InputError(
                f"{key}: found {value!r}, expected {expected} {of}{hint or LISTED.format(run)}"
            )
        models = [model for model in models if getattr(model, key) == value]
    return models[0]


def _load_distilled(
    run: Path, model: Available, n_components: int, weights: str, device: torch.device | str
) -> Circuit:
    teacher, seed = f"{model.grid}-K{model.codebook_size}", f"seed-{model.seed}"
    trained = run / f"models/vqvae-{teacher}" / seed / "weights.safetensors"
    path = run / "latents" / teacher / seed / "latents.npz"
    check_same_training(trained, path)
    vqvae, latents = load_vqvae(trained, device), read_latents(path)[model.method]
    if model.method == EXACT_METHOD:
        log_probs = latents.log_prob_of_all, latents.log_prob_of_all_by_class
        return exact_mixture(vqvae, *log_probs, uniform=weights == "uniform")
    codes, by_class = latents.first(n_components)
    log_weights = mean_over_classes(by_class).log_softmax(0) if weights == "prior" else None
    return distilled_mixture(vqvae, codes, log_weights, by_class)


def _check_device(device: torch.device | str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InputError(
            f"device: found {device!r}, expected 'cpu', or 'cuda' where there is a GPU"
            f" ({str(error).splitlines()[0]})"
        ) from None


SAVED = {  # by the kind that `Circuit.save` writes
    "mixture": Mixture.from_stored,
    "latents": mixtures.from_stored,
    "einet": EiNet.from_stored,
    "quad_tree": QuadTree.from_stored,
}


def _load_file(path: Path, device: torch.device | str) -> Circuit:
    """The model that `save` wrote."""
    tensors, facts = read_tensors(path)
    if facts.get("circuit") not in SAVED:
        raise InputError(
            f"{path}: no model that model.save wrote; a trained one is loaded by its run, such as"
            " vqdistill.load('results/quick', 'einet', size=4)"
        )
    try:
        with readable(path, "a saved model"):
            model = SAVED[facts["circuit"]](tensors, facts)
    except InputError as error:
        told = str(error)
        raise InputError(told if told.startswith(str(path)) else f"{path}: {told}") from None
    model.image_shape = tuple(facts["image_shape"]) if facts["image_shape"] else None
    model.levels = facts["levels"]
    return model.to(device)
