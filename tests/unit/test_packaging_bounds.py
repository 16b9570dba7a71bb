"""What is installed: one lower bound for each library, and a lock that has them all and leads to no registry."""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "requirements.lock").read_text()
PYTHONS = ("3.11", "3.12", "3.13", "3.14")


def named() -> dict[str, list[Requirement]]:
    """Every requirement of pyproject.toml, by where it stands."""
    project = PROJECT["project"]
    places = {
        "build-system": PROJECT["build-system"]["requires"],
        "dependencies": project["dependencies"],
        **project["optional-dependencies"],
        **PROJECT["dependency-groups"],
    }
    return {place: [Requirement(line) for line in lines] for place, lines in places.items()}


def locked() -> dict[str, list[Requirement]]:
    """The pins of the lock; several of one library are for different Pythons."""
    found: dict[str, list[Requirement]] = defaultdict(list)
    for line in re.findall(r"^[a-z].*?(?= \\$)", LOCK, re.MULTILINE):
        pin = Requirement(line)
        found[canonicalize_name(pin.name)].append(pin)
    return found


PINS = locked()


def for_python(name: str, python: str) -> list[Requirement]:
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    return [pin for pin in PINS[name] if pin.marker is None or pin.marker.evaluate(environment)]


def test_a_library_has_the_same_bounds_wherever_it_is_named() -> None:
    bounds = defaultdict(set)
    for requirements in named().values():
        for one in requirements:
            bounds[canonicalize_name(one.name)].add(str(one.specifier))
    assert {name: found for name, found in bounds.items() if len(found) > 1} == {}
    assert all(">=" in bound for found in bounds.values() for bound in found)


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_has_one_version_of_every_library_that_is_named(python: str) -> None:
    for requirements in named().values():
        for one in requirements:
            [pin] = for_python(canonicalize_name(one.name), python)
            assert one.specifier.contains(pin.specifier.__str__().removeprefix("==")), f"make lock: {one}"


def test_the_lock_has_what_these_libraries_need_themselves() -> None:
    """By the metadata of what is installed here."""
    wanted = [(str(one.name), frozenset(one.extras)) for requirements in named().values() for one in requirements]
    seen = set(wanted)
    missing = set()
    while wanted:
        name, extras = wanted.pop()
        if canonicalize_name(name) not in PINS:
            missing.add(name)
        try:
            requires = distribution(name).requires or []
        except PackageNotFoundError:
            continue
        for one in map(Requirement, requires):
            applies = not one.marker or any(one.marker.evaluate({"extra": extra}) for extra in extras or {""})
            following = (one.name, frozenset(one.extras))
            if applies and following not in seen:
                seen.add(following)
                wanted.append(following)
    assert missing == set()
    assert len(seen) > 60


def test_the_lock_pins_versions_with_hashes_and_leads_to_no_registry() -> None:
    stanzas = re.split(r"\n(?=[a-z])", LOCK.strip())
    for stanza in stanzas:
        first, *hashes = stanza.split(" \\\n    ")
        assert re.fullmatch(r"[a-z0-9-]+==[\w.+]+( ; .+)?", first), first
        assert hashes
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", text) for text in hashes), first
    assert sum(map(len, PINS.values())) == len(stanzas)


def test_make_installs_nothing_beside_the_lock() -> None:
    recipes = (ROOT / "Makefile").read_text()
    installs = re.findall(r"^.*\b(?:install|pip install)\b.*$", recipes, re.MULTILINE)
    ours = [line for line in installs if "pip" in line.lower()]
    assert len(ours) == 3
    assert all(re.search(r"requirements\.lock|--no-deps", line) for line in ours), ours
