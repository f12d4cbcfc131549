"""``lxd.LXDDriver`` resolves however Nova and we are installed; nothing of ours lies under nova/.

Four cells, {wheel, editable} Nova x {wheel, editable} nova-lxd, each in a virtual environment of
its own.  The other libraries are shared: the environments see them through a folder of links that
leaves out Nova and ourselves.  What stands for Nova:

* wheel: links to the ``nova`` package and its metadata as pip has unpacked them;
* editable: Nova's own modules in a folder shaped like its repository, installed with ``pip install
  -e`` through pbr, Nova's build backend, so setuptools' finder for editable packages is at work.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SITE_PACKAGES = pathlib.Path(sysconfig.get_path("purelib"))
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
INSTALL = ["install", "--no-deps", "--no-build-isolation", "--no-index"]
FORMS = ("wheel", "editable")

NOVA_PYPROJECT = """\
[build-system]
requires = ["pbr", "setuptools"]
build-backend = "pbr.build"
[project]
name = "nova"
dynamic = ["version", "dependencies"]
"""
NOVA_SETUP_CFG = "[metadata]\nname = nova\n[files]\npackages =\n    nova\n"
NOVA_SETUP_PY = "import setuptools\nsetuptools.setup(pbr=True)\n"

RESOLVE = """\
import nova.virt.fake
from oslo_utils import importutils
driver = importutils.import_class("nova.virt.lxd.LXDDriver")
from nova_lxd.virt.driver import LXDDriver
assert driver is LXDDriver, driver
print(nova.__file__)
"""


def run(*command: object, cwd: pathlib.Path, **env: str) -> str:
    """Run ``command`` and return its standard output; the error shows all it said."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "HOME": str(cwd), **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Environment:
    """A virtual environment that shares every library but Nova and ourselves."""

    path: pathlib.Path

    @property
    def python(self) -> pathlib.Path:
        return self.path / "bin" / "python"

    @property
    def site_packages(self) -> pathlib.Path:
        return next(self.path.glob("lib/python*/site-packages"))

    def pip(self, *arguments: object) -> None:
        run(*PIP, "--python", self.python, *arguments, cwd=self.path, PBR_VERSION="34.0.0")

    def listing(self) -> set[str]:
        """All paths, without the byte code that running leaves."""
        found = (path.relative_to(self.site_packages) for path in self.site_packages.rglob("*"))
        return {str(path) for path in found if "__pycache__" not in path.parts}


def make_environment(path: pathlib.Path, libraries: pathlib.Path) -> Environment:
    venv.create(path, with_pip=False, symlinks=True)
    environment = Environment(path)
    (environment.site_packages / "libraries.pth").write_text(f"{libraries}\n")
    return environment


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Links to everything installed here except Nova, ourselves and start-up files."""
    folder = tmp_path_factory.mktemp("libraries")
    ours = ("nova_lxd", "nova-lxd", "__editable__", "_editable_impl", "_nova_lxd")
    for entry in SITE_PACKAGES.iterdir():
        nova = entry.name == "nova" or entry.name.startswith("nova-")
        if not (nova or entry.name.startswith(ours) or entry.suffix == ".pth"):
            (folder / entry.name).symlink_to(entry)
    return folder


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A copy of what makes our package, so that building leaves nothing in the repository."""
    copy = tmp_path_factory.mktemp("nova-lxd")
    for name in ("nova_lxd", "nova-lxd.pth", "pyproject.toml", "README.rst", "LICENSE"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    return copy


@pytest.fixture(scope="module")
def wheel(sources: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    target = tmp_path_factory.mktemp("wheel")
    build = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", target]
    run(*PIP, *build, sources, cwd=target)
    return next(target.glob("nova_lxd-*.whl"))


@pytest.fixture(scope="module")
def nova_repository(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Nova's modules in the shape of its repository."""
    folder = tmp_path_factory.mktemp("nova-repository")
    skip = shutil.ignore_patterns("__pycache__", "tests", "locale")
    shutil.copytree(SITE_PACKAGES / "nova", folder / "nova", ignore=skip)
    (folder / "pyproject.toml").write_text(NOVA_PYPROJECT)
    (folder / "setup.cfg").write_text(NOVA_SETUP_CFG)
    (folder / "setup.py").write_text(NOVA_SETUP_PY)
    return folder


def install_nova(environment: Environment, form: str, repository: pathlib.Path) -> None:
    if form == "editable":
        environment.pip(*INSTALL, "--editable", repository)
        return
    metadata = importlib.metadata.distribution("nova").locate_file("")
    for source in (SITE_PACKAGES / "nova", *pathlib.Path(str(metadata)).glob("nova-*.dist-info")):
        (environment.site_packages / source.name).symlink_to(source)


@pytest.mark.packaging
@pytest.mark.parametrize(("nova", "ours"), itertools.product(FORMS, FORMS))
def test_driver_resolves(
    nova: str,
    ours: str,
    tmp_path: pathlib.Path,
    libraries: pathlib.Path,
    nova_repository: pathlib.Path,
    sources: pathlib.Path,
    wheel: pathlib.Path,
) -> None:
    environment = make_environment(tmp_path / "environment", libraries)
    install_nova(environment, nova, nova_repository)
    before = environment.listing()

    environment.pip(*INSTALL, *([wheel] if ours == "wheel" else ["--editable", sources]))

    nova_home = nova_repository if nova == "editable" else environment.site_packages
    for folder in (tmp_path, ROOT):
        nova_file = run(environment.python, "-c", RESOLVE, cwd=folder).strip()
        assert nova_file == str(nova_home / "nova" / "__init__.py")
    assert "inspect" in run(environment.path / "bin" / "nova-lxd-image", "--help", cwd=tmp_path)

    environment.pip("uninstall", "--yes", "nova-lxd")
    assert environment.listing() == before
    run(environment.python, "-c", "import nova.virt.fake", cwd=tmp_path)


def test_wheel_holds_the_hook_and_nothing_of_nova(wheel: pathlib.Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())

    assert {"nova-lxd.pth", "nova_lxd/_import_hook.py", "nova_lxd/py.typed"} <= names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"nova_lxd", "nova-lxd.pth"}


def test_repository_has_no_nova_folder() -> None:
    assert not (ROOT / "nova").exists()


def test_package_itself_imports_nothing(tmp_path: pathlib.Path) -> None:
    """The .pth file loads it at every interpreter start, also in processes that never see Nova."""
    script = (
        "import sys; before = set(sys.modules); import nova_lxd._import_hook;"
        "print(sorted(set(sys.modules) - before))"
    )
    out = run(sys.executable, "-S", "-c", script, cwd=tmp_path, PYTHONPATH=str(ROOT))

    assert out.strip() == "['nova_lxd', 'nova_lxd._import_hook']"


def test_hook_answers_for_one_name_only() -> None:
    from nova_lxd import _import_hook

    assert _import_hook._Finder.find_spec("nova.virt.lxd") is not None
    assert _import_hook._Finder.find_spec("nova.virt.fake") is None
    assert _import_hook._Finder.find_spec("nova") is None
    _import_hook.install()
    assert sys.meta_path.count(_import_hook._Finder) == 1
    assert sys.meta_path.index(_import_hook._Finder) > 0
