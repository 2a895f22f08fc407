"""environment.yml, pyproject.toml and uv.lock name the same packages at the same versions."""

import re
import tomllib

import pytest
import yaml
from helpers import ROOT
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def lock() -> dict:
    return tomllib.loads((ROOT / "uv.lock").read_text())


@pytest.fixture(scope="module")
def conda() -> dict:
    return yaml.safe_load((ROOT / "environment.yml").read_text())


def required(project: dict) -> dict[str, SpecifierSet]:
    """The packages that pyproject.toml names, for use and for development."""
    named = project["project"]["dependencies"] + project["dependency-groups"]["dev"]
    return {one.name: one.specifier for one in map(Requirement, named)}


def locked(lock: dict, name: str, python: str) -> str:
    """The one version of a package that uv.lock has for Linux under this Python."""
    platform = {"python_full_version": f"{python}.0", "sys_platform": "linux"}
    fitting = [
        package["version"]
        for package in lock["package"]
        if package["name"] == name
        and any(
            Marker(marker).evaluate(platform)
            for marker in package.get("resolution-markers", ["sys_platform == 'linux'"])
        )
    ]
    assert len(fitting) == 1, (name, fitting)
    return fitting[0]


def python_of(conda: dict) -> str:
    return next(x for x in conda["dependencies"] if str(x).startswith("python=")).partition("=")[2]


def pinned(conda: dict) -> dict[str, str]:
    """Versions by package in environment.yml, of its conda and its pip part."""
    plain = [one for one in conda["dependencies"] if isinstance(one, str)]
    pip = next(one["pip"] for one in conda["dependencies"] if isinstance(one, dict))
    pins = dict(
        re.fullmatch(r"([a-z0-9-]+)=([0-9.]+)", one).groups() for one in plain if "=" in one
    )
    pins |= dict(one.split("==") for one in pip)
    return {name: version for name, version in pins.items() if name != "python"}


def test_environment_has_the_locked_version_of_every_required_package(project, lock, conda):
    expected = {name: locked(lock, name, python_of(conda)) for name in required(project)}
    assert pinned(conda) == expected


def test_environment_has_a_python_that_the_project_allows(project, conda):
    assert f"{python_of(conda)}.0" in SpecifierSet(project["project"]["requires-python"])


def test_environment_is_named_after_the_project(project, conda):
    assert conda["name"] == project["project"]["name"] == "vqdistill"
    assert conda["channels"] == ["conda-forge", "bioconda", "nodefaults"]


def test_lock_was_made_from_these_requirements(project, lock):
    own = next(package for package in lock["package"] if package["name"] == "vqdistill")
    metadata = own["metadata"]
    stated = metadata["requires-dist"] + metadata["requires-dev"]["dev"]
    found = {one["name"]: SpecifierSet(one.get("specifier", "")) for one in stated}
    assert found == required(project)
    assert lock["requires-python"] == project["project"]["requires-python"]
