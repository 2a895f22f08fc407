"""An experiment's configuration: checked, and resolved into the settings of each job.

What a job gets is all that its result depends on besides its input files, its seed and the code.
Nothing imports torch.
"""

import importlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, NoneType
from typing import Any

import yaml

from vqdistill.baselines import SETTINGS, has_size, is_circuit, settings_of
from vqdistill.datasets import DATASETS, Dataset
from vqdistill.distillation import EXACT_METHOD, MAX_EXACT_LATENTS, METHODS, method_names
from vqdistill.errors import InputError
from vqdistill.models.architectures import check_channels, check_cm_channels, encoder_layers
from vqdistill.settings import (
    VQVAE,
    BaselineEvaluation,
    BaselineTraining,
    Classifier,
    ContinuousMixture,
    Data,
    Distillation,
    EiNet,
    Experiment,
    GaussianMixture,
    Inpainting,
    Prior,
    Settings,
    Student,
    Teacher,
    TeacherEvaluation,
    VQVAEs,
    check_plain,
    grid_name,
    kinds_at,
    parse_grid,
    parsed,
    plain,
    suggestion,
)


def checked(config: dict[str, Any]) -> Experiment:
    """A configuration as Snakemake reads it: typed, complete and possible.

    Raises InputError, one line that names the key, what was found and what is expected.
    """
    check_plain(config, "config")
    experiment = parsed(Experiment, _complete(config), "config")
    _check_students(experiment)
    for teacher in experiment.teachers:
        _check_teacher(experiment, teacher, _place(teacher, config["teachers"]))
    _check_inpainting(experiment)
    for method in plain(experiment.baselines):  # those that are left out too
        with _told_at("config: "):
            settings_of(method)
    for model in baselines(experiment):
        _check_baseline(experiment, model)
    return experiment


def of_command_line(entry: str) -> dict[str, Any]:
    """An entry of --config, 'key=value', as a configuration of this key.

    The value is read once, as YAML, and by what the settings expect there: what stands for a text
    is left as it is written, and is no number or date.
    """
    key, _, text = entry.partition("=")
    try:
        return {key: _read(yaml.compose(text, yaml.SafeLoader), (key,))}
    except yaml.YAMLError:
        return {key: text}


def _read(node: yaml.Node | None, path: tuple[str, ...]) -> Any:
    if isinstance(node, yaml.MappingNode):
        return {str(k.value): _read(v, (*path, str(k.value))) for k, v in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_read(item, (*path, str(n))) for n, item in enumerate(node.value)]
    if node is None or node.style in ("'", '"'):
        return node and node.value
    kinds = kinds_at(Experiment, path)
    if any(kind is str or isinstance(kind, str) for kind in kinds):
        is_null = node.tag.endswith(":null") and NoneType in kinds
        return None if is_null else node.value
    is_plain = node.tag.endswith((":int", ":float", ":bool", ":null"))
    return yaml.safe_load(node.value) if is_plain else node.value


@contextmanager
def _told_at(place: str) -> Iterator[None]:
    """An error within is told with its place in the configuration before it."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{place}{error}") from None


def _complete(config: dict[str, Any]) -> dict[str, Any]:
    """Each model's `training` filled up from the experiment's, and what is left out, where it is
    not the same for all experiments."""
    common = config.get("training", {})
    classifier = Classifier().training.model_dump(exclude_unset=True)
    completed = dict(config)
    for name, of_model in {"vqvae": {}, "prior": {}, "classifier": classifier}.items():
        completed[name] = _with_training(config.get(name, {}), _merged(common, of_model))
    if isinstance(config.get("baselines"), dict):
        sections = config["baselines"].items()
        completed["baselines"] = {name: _with_training(entry, common) for name, entry in sections}
    students = config.get("students", {name: {} for name in _default_students()})
    if isinstance(students, dict):
        students = {name: _with_training(entry, common) for name, entry in students.items()}
    completed["students"] = students
    if isinstance(completed["vqvae"], dict):
        channels = plain(VQVAEs())["channels"]
        channels = _merged(channels, completed["vqvae"].get("channels", {}))
        completed["vqvae"] = completed["vqvae"] | {"channels": channels}
    return _fitted(completed)


def _default_students() -> dict[str, Any]:
    return Experiment.model_fields["students"].default


def _fitted(config: dict[str, Any]) -> dict[str, Any]:
    """The defaults that are numbers of images, or N, within what this experiment has."""
    data, sizes = config.get("data"), config.get("n_components")
    dataset = DATASETS.get(str(data.get("dataset"))) if isinstance(data, dict) else None
    defaults, inpainting = Inpainting(), {}
    if isinstance(sizes, list):
        inpainting["n_components"] = [n for n in defaults.n_components if n in sizes]
    if dataset:
        part = min(Data.model_fields["training_part"].default, dataset.n_train)
        config["data"] = {"training_part": part} | data
        inpainting["scored_images"] = min(defaults.scored_images, dataset.n_held_out)
    config["inpainting"] = _merged(inpainting, config.get("inpainting", {}))
    return config


def _with_training(section: Any, training: Any) -> Any:
    if not isinstance(section, dict):
        return section
    return section | {"training": _merged(training, section.get("training", {}))}


def _merged(common: Any, own: Any) -> Any:
    """`own` on top of `common`; what is no mapping is left for its type to be refused."""
    return common | own if isinstance(common, dict) and isinstance(own, dict) else own


def _place(teacher: Teacher, given: list[Any]) -> str:
    """The place of a teacher among those that were given, as errors name it."""
    number = [parsed(Teacher, one, "config") for one in given].index(teacher)
    return f"config: teachers.{number}"


def _check_inpainting(experiment: Experiment) -> None:
    """InputError unless inpainted are sizes of mixtures, and images, that there are."""
    wanted, most = experiment.inpainting, images(experiment).n_held_out
    unknown = {*wanted.n_components} - {*experiment.n_components}
    if unknown:
        raise InputError(
            f"config: inpainting.n_components: found {min(unknown)}, expected some of n_components,"
            f" {list(experiment.n_components)}; add it there or leave it out here"
        )
    if wanted.scored_images > most:
        raise InputError(
            f"config: inpainting.scored_images: found {wanted.scored_images}, expected at most"
            f" {most}, the test images of {experiment.data.dataset}"
        )


def _check_students(experiment: Experiment) -> None:
    """InputError unless each has a name of its own, and levels that its circuits have."""
    taken = [EXACT_METHOD, *method_names(), *plain(experiment.baselines)]
    depth = math.ceil(math.log2(max(images(experiment).shape)))
    for name, student in experiment.students.items():
        if name in taken:
            raise InputError(f"config: students.{name}: the name of another method; choose one")
        if (student.settings.class_levels or 0) > depth:
            raise InputError(
                f"config: students.{name}.settings.class_levels: found"
                f" {student.settings.class_levels}, expected at most {depth}, the levels of a"
                " quad-tree over these images"
            )


def _check_teacher(experiment: Experiment, teacher: Teacher, where: str) -> None:
    """InputError unless a teacher's VQ-VAEs can be built, and hold what is selected of them."""
    own = (EXACT_METHOD, *experiment.students)
    known, grid = [*own, *method_names()], grid_name(teacher.grid)
    for method in teacher.methods:
        if method not in known:
            hint = suggestion(method, known)
            raise InputError(f"{where}.methods: found {method!r}, expected a method; {hint}")
        if method not in (*own, *METHODS):
            with _told_at(f"{where}.methods: "):
                _contracts().check_method(method)
    channels, positions = experiment.vqvae.channels, math.prod(teacher.grid)
    if grid not in channels:
        raise InputError(
            f"{where}.grid: no channels for {grid}; add them under vqvae.channels, which has"
            f" {', '.join(channels)}"
        )
    with _told_at(f"{where}."):
        layers, _ = encoder_layers(images(experiment).shape, teacher.grid)
    with _told_at(f"config: vqvae.channels.{grid}: "):
        check_channels(channels[grid], len(layers), teacher.grid)
    encodings = experiment.data.training_part * positions
    for size in teacher.codebook_sizes:
        latents, largest = size**positions, max(experiment.n_components)
        if experiment.vqvae.initialisation == "kmeans" and size > encodings:
            raise InputError(
                f"{where}: vqvae.initialisation: kmeans of K = {size} codes on {grid}, but the"
                f" training_part has only {encodings} encodings; raise data.training_part, lower"
                " the codebook size or choose uniform"
            )
        if {*teacher.methods} - {*own} and largest > latents:
            raise InputError(
                f"{where}: {largest} components of n_components, but K = {size} on {grid} has"
                f" only {latents} latents; lower n_components or raise the codebook size"
            )
        if EXACT_METHOD in teacher.methods and latents > MAX_EXACT_LATENTS:
            raise InputError(
                f"{where}: exm with K = {size} on {grid} has {size}^{positions} latents, of"
                f" which at most {MAX_EXACT_LATENTS} can be enumerated; lower the codebook size"
            )


def _check_baseline(experiment: Experiment, model: str) -> None:
    """InputError unless a model's settings are those of its kind, and fit the images."""
    method, size = baselines(experiment)[model]
    where = f"config: baselines.{method}"
    if "size" in _sections(experiment)[method]["settings"]:
        raise InputError(f"{where}.settings.size: list it in `sizes` instead")
    if has_size(method) != bool(size):
        expected = "one size or more" if has_size(method) else "none, this model has no size"
        raise InputError(f"{where}.sizes: expected {expected}")
    settings = _own_settings(experiment, model)
    shape, n_train = images(experiment).shape, images(experiment).n_train
    if isinstance(settings, ContinuousMixture):
        with _told_at(f"{where}.settings."):
            check_cm_channels(shape, settings.channels)
    if isinstance(settings, EiNet):
        step = settings.pixels_per_step
        if any(side % step for side in shape) or shape == (step, step):
            raise InputError(
                f"{where}.settings.pixels_per_step: found {step}, expected a divisor of both sides"
                f" of images of {shape[0]}x{shape[1]} that leaves at least two pieces"
            )
    if isinstance(settings, GaussianMixture) and settings.size > n_train:
        raise InputError(
            f"{where}.sizes: found {settings.size}, expected at most {n_train}, the training images"
            " on which the components start"
        )
    if method not in SETTINGS:
        with _told_at("config: "):
            _contracts().check_baseline(method, settings, images(experiment))


def _contracts() -> ModuleType:
    """What was added is tried, for which torch is imported; not where nothing was."""
    return importlib.import_module("vqdistill.contracts")


# What an experiment consists of


def images(experiment: Experiment) -> Dataset:
    """What is known of its images."""
    return DATASETS[experiment.data.dataset]


def teachers(experiment: Experiment) -> dict[str, tuple[str, ...]]:
    """The methods by teacher, such as '2x2-K16': one VQ-VAE with its prior."""
    return {
        f"{grid_name(teacher.grid)}-K{size}": teacher.methods
        for teacher in experiment.teachers
        for size in teacher.codebook_sizes
    }


def baselines(experiment: Experiment) -> dict[str, tuple[str, int]]:
    """(method, size) by model, such as 'cm' and 'einet-8'; size 0 where it has none."""
    models = {}
    for method, section in _sections(experiment).items():
        for size in section.get("sizes") or [0]:
            models[f"{method}-{size}" if size else method] = (method, size)
    return models


def students(experiment: Experiment) -> dict[str, tuple[str, str, int]]:
    """(method, teacher, size) by model, such as 'deep-4x4-K256-8'."""
    return {
        f"{method}-{teacher}-{size}": (method, teacher, size)
        for teacher, methods in teachers(experiment).items()
        for method in methods
        if method in experiment.students
        for size in experiment.students[method].sizes
    }


def students_of(experiment: Experiment, teacher: str) -> list[str]:
    """The models that are learned from a teacher's samples."""
    return [model for model, (_, own, _) in students(experiment).items() if own == teacher]


def methods(experiment: Experiment) -> list[str]:
    """All methods of an experiment, in the order in which they are named."""
    named = [method for teacher in experiment.teachers for method in teacher.methods]
    return list(dict.fromkeys([*named, *_sections(experiment)]))


def evaluated_on(experiment: Experiment, method: str) -> list[str]:
    """The teachers or models that a method is evaluated on."""
    distilled = [teacher for teacher, names in teachers(experiment).items() if method in names]
    learned = [model for model, (name, _) in baselines(experiment).items() if name == method]
    return distilled + learned


def _sections(experiment: Experiment) -> dict[str, dict[str, Any]]:
    """The baselines that are not left out, as plain values."""
    return {name: section for name, section in plain(experiment.baselines).items() if section}


def _split(teacher: str) -> dict[str, Any]:
    """The grid and the codebook size of a teacher."""
    grid, _, size = teacher.partition("-K")
    return {"grid": parse_grid(grid), "codebook_size": int(size)}


def _shared(section: Settings, *but: str) -> dict[str, Any]:
    """The settings of a section by name, as they are, but for some."""
    return {name: value for name, value in section if name not in but}


# The settings of jobs


def vqvae_settings(experiment: Experiment, teacher: str) -> VQVAE:
    """Of train_vqvae for one teacher."""
    channels = experiment.vqvae.channels[teacher.partition("-")[0]]
    return VQVAE(**_shared(experiment.vqvae, "channels"), channels=channels, **_split(teacher))


def prior_settings(experiment: Experiment, teacher: str) -> Prior:
    """Of train_prior for one teacher."""
    width = experiment.prior.width or vqvae_settings(experiment, teacher).channels[-1]
    return Prior(**_shared(experiment.prior, "width"), width=width, **_split(teacher))


def selection_settings(experiment: Experiment, teacher: str) -> Distillation:
    """Of distil for one teacher."""
    selections = [m for m in teachers(experiment)[teacher] if m not in experiment.students]
    return Distillation(
        **_split(teacher), methods=tuple(selections), n_components=experiment.n_components
    )


def student_settings(experiment: Experiment, model: str) -> Student:
    """Of train_student for one model."""
    method, teacher, size = students(experiment)[model]
    student = experiment.students[method]
    own = {"method": method, "size": size, "training": student.training}
    return Student(**_shared(student.settings), **_split(teacher), **own)


def teacher_evaluation_settings(experiment: Experiment, teacher: str) -> TeacherEvaluation:
    """Of evaluate_teacher for one teacher."""
    wanted = {"n_components": experiment.n_components, "inpainting": experiment.inpainting}
    return TeacherEvaluation(**_split(teacher), **wanted)


def baseline_settings(experiment: Experiment, model: str) -> BaselineTraining:
    """Of train_baseline for one model."""
    method, _ = baselines(experiment)[model]
    training = getattr(experiment.baselines, method).training
    own = plain(_own_settings(experiment, model))
    return BaselineTraining(method=method, settings=own, training=training)


def _own_settings(experiment: Experiment, model: str) -> Settings:
    method, size = baselines(experiment)[model]
    values = _sections(experiment)[method]["settings"] | ({"size": size} if size else {})
    return parsed(settings_of(method), values, "config", f"baselines.{method}.settings")


def baseline_evaluation_settings(experiment: Experiment, model: str) -> BaselineEvaluation:
    """Of evaluate_baseline for one model."""
    method, size = baselines(experiment)[model]
    wanted = {"n_components": experiment.n_components, "inpainting": experiment.inpainting}
    return BaselineEvaluation(method=method, size=size, **wanted)


def settings_of_steps(experiment: Experiment) -> dict[tuple[str, str], dict[str, Any]]:
    """The settings of every step that leaves a record, by step and teacher or model."""
    found: dict[tuple[str, str], Settings] = {
        ("train_classifier", "classifier"): experiment.classifier
    }
    for teacher in teachers(experiment):
        found["train_vqvae", f"vqvae-{teacher}"] = vqvae_settings(experiment, teacher)
        found["train_prior", f"prior-{teacher}"] = prior_settings(experiment, teacher)
        found["distil", teacher] = selection_settings(experiment, teacher)
        evaluation = teacher_evaluation_settings(experiment, teacher)
        found["evaluate_teacher", f"vqvae-{teacher}"] = evaluation
    for model in students(experiment):
        found["train_student", model] = student_settings(experiment, model)
    for model in baselines(experiment):
        found["train_baseline", model] = baseline_settings(experiment, model)
        found["evaluate_baseline", model] = baseline_evaluation_settings(experiment, model)
    return {step: plain(settings) for step, settings in found.items()}


def expected_models(experiment: Experiment) -> list[dict[str, Any]]:
    """The keys of every model that density.csv must hold."""
    models = []
    for teacher, names in teachers(experiment).items():
        grid, size = _split(teacher).values()
        keys = {"grid": grid_name(grid), "codebook_size": size, "size": 0}
        for method in [name for name in names if name not in experiment.students]:
            everything = [size ** math.prod(grid)]
            sizes = everything if method == EXACT_METHOD else experiment.n_components
            models += [
                {"method": method, **keys, "n_components": n, "weights": weights}
                for n in sizes
                for weights in ("uniform", "prior")
            ]
    for method, teacher, size in students(experiment).values():
        grid, codebook_size = _split(teacher).values()
        keys = {"grid": grid_name(grid), "codebook_size": codebook_size, "size": size}
        models.append({"method": method, **keys, "n_components": 0, "weights": "learned"})
    for method, size in baselines(experiment).values():
        keys = {"method": method, "grid": "-", "codebook_size": 0, "size": size}
        if is_circuit(method):
            models.append({**keys, "n_components": 0, "weights": "learned"})
        else:
            sizes = experiment.n_components
            models += [{**keys, "n_components": n, "weights": "uniform"} for n in sizes]
    return [model | {"seed": seed} for model in models for seed in experiment.seeds]
