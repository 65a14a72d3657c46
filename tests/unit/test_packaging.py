"""What is installed is whole: each file that the packages read is a package's data."""

import tomllib

from tests.stack import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = ("api", "deploy", "rejoin", "shared", "worker")


def test_every_file_beside_the_code_is_installed_with_it() -> None:
    data = PROJECT["tool"]["setuptools"]["package-data"]
    # What else is in `deploy` is for other programs.
    for package in set(PACKAGES) - {"deploy"}:
        folder = ROOT / package
        installed = {path for pattern in data.get(package, []) for path in folder.glob(pattern)}
        there = {path for path in folder.rglob("*.*") if path.suffix not in (".py", ".pyc") and path.is_file()}
        assert there <= installed, there - installed


def test_every_folder_of_code_is_a_package() -> None:
    """Or the search for packages passes it over."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            assert (path.parent / "__init__.py").exists(), path
    assert PROJECT["tool"]["setuptools"]["packages"]["find"]["include"] == [f"{package}*" for package in PACKAGES]
