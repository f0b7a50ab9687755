"""Build the Dockerfile's image in a directory, without Docker, measure what it installs, and run it.

Usage: python tools/image.py [--directory build/image] [--keep] [--build-arg NAME=VALUE ...]

The instructions are carried out with chroot in a root that debootstrap makes. Debian's own Python stands in for the one
that the official image compiles; everything else (Debian bookworm, pip, the instructions, the context that
.dockerignore leaves) is as under Docker, but for the layers: sizes are differences of the root's. Needs root, Linux's
namespaces and debootstrap, which is installed through apt. Leaves no mount and no process: everything runs in mount and
process namespaces that end with this program, however it ends. The base is kept for the next time; `rm -r` of the
directory removes it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from dockerfile import DockerfileError, Instruction, Stage, expand, read_argument, read_ignore, read_stages
from image_checks import check_image, prepare_job
from logged import StepError, exit_status, run_logged

ROOT = Path(__file__).resolve().parent.parent
INSIDE = "KDISTILL_IMAGE_INSIDE"  # set in the process that has the namespaces

# What stands in for the image that FROM names: suite of Debian, and its packages beside the minimal system's.
STAND_INS = {
    "python:3.11-slim-bookworm": ("bookworm", ("python3", "python3-dev", "python3-pip", "ca-certificates")),
}
STAND_IN_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin", "LANG": "C.UTF-8"}


@dataclass
class Filesystem:
    """A stage being built: its root and what its instructions have set so far."""

    root: Path
    environment: dict[str, str] = field(default_factory=lambda: dict(STAND_IN_ENVIRONMENT))
    arguments: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    ports: list[str] = field(default_factory=list)
    user: str = "root"
    directory: str = "/"
    entrypoint: list[str] = field(default_factory=list)

    @property
    def variables(self) -> dict[str, str]:
        return self.arguments | self.environment

    def account(self) -> tuple[int, int, str]:
        """Return user id, group id and home directory of the user, from the root's /etc/passwd."""
        for line in (self.root / "etc/passwd").read_text().splitlines():
            name, _, uid, gid, _, home, _ = line.split(":")
            if self.user in (name, uid):
                return int(uid), int(gid), home
        raise StepError(f"USER {self.user}: not in the image's /etc/passwd")

    def command(self, words: list[str], extra: dict[str, str]) -> list[str]:
        """Return the command line that runs `words` in the root, as the user, with the image's environment alone."""
        uid, gid, home = self.account()
        environment = {"HOME": home} | self.environment | extra
        return [
            *("chroot", f"--userspec={uid}:{gid}", f"--groups={gid}", str(self.root)),
            *("/usr/bin/env", "-i", f"--chdir={self.directory}"),
            *(f"{name}={value}" for name, value in environment.items()),
            *words,
        ]


def size_mb(root: Path) -> float:
    """Return the sum of the sizes of the files below `root`, each counted once, in MB."""
    seen = {}
    for directory, names, files in os.walk(root):
        names[:] = [name for name in names if not os.path.ismount(os.path.join(directory, name))]  # noqa: PTH118
        for name in files:
            status = os.lstat(os.path.join(directory, name))  # noqa: PTH118
            seen[status.st_ino] = status.st_size
    return sum(seen.values()) / 1e6


def make_base(image: str, directory: Path) -> Path:
    """Return the root that stands in for `image`, made by debootstrap unless it is there."""
    if image not in STAND_INS:
        raise StepError(f"FROM {image}: nothing stands in for it; there is something for {', '.join(STAND_INS)}")
    suite, packages = STAND_INS[image]
    base = directory / "base"
    complete = directory / "base.of"
    recipe = f"{image} {suite} {' '.join(packages)}\n"
    if complete.exists() and complete.read_text() == recipe:
        return base
    shutil.rmtree(base, ignore_errors=True)
    complete.unlink(missing_ok=True)
    run_logged(
        ["debootstrap", "--variant=minbase", f"--include={','.join(packages)}", suite, str(base)],
        directory / "debootstrap.log",
        f"debootstrap {suite}",
    )
    # As in the official image: `python` is a command, and pip installs without asking whose Python this is.
    (base / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    for marker in (base / "usr/lib").glob("python3*/EXTERNALLY-MANAGED"):
        marker.unlink()
    for cached in (base / "var/cache/apt/archives").glob("*.deb"):
        cached.unlink()
    complete.write_text(recipe)
    return base


class Mounts:
    """What a root needs of this machine while it is built and run; gone with the mount namespace.

    Docker gives a container /proc, the resolver's configuration, and at build time the proxy variables. The settings of
    pip on this machine (an index, certificates, constraints) are handed over as PIP_* variables, the files they name
    are mounted read-only where they lie, and none of it stays in the root.
    """

    def __init__(self, root: Path, of_pip: bool) -> None:
        self._root = root
        self._of_pip = of_pip
        self._made: list[Path] = []
        self._mounted: list[Path] = []
        self.environment = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}

    def __enter__(self) -> Mounts:
        self._mount("proc", Path("/proc"), "-t", "proc")
        self._mount("tmpfs", Path("/dev/shm"), "-t", "tmpfs")
        for path in (Path("/etc/resolv.conf"), Path("/etc/hosts")):
            self._bind(path)
        if self._of_pip:
            self._hand_pip_over()
        return self

    def _hand_pip_over(self) -> None:
        listed = subprocess.run(
            [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
        )
        for line in listed.stdout.splitlines():
            name, _, value = line.partition("=")
            words = value.strip("'\"").replace("\\n", " ").split()
            section, _, option = name.rpartition(".")
            if section in ("global", "install", ":env:") and words:
                self.environment["PIP_" + option.upper().replace("-", "_")] = " ".join(words)
                for word in words:
                    path = Path(word.removeprefix("file://"))
                    if path.is_absolute() and path.exists():
                        self._bind(path)

    def __exit__(self, *error: object) -> None:
        for path in reversed(self._mounted):
            subprocess.run(["umount", "--lazy", str(path)], check=True)
        for path in reversed(self._made):
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink()

    def _bind(self, path: Path) -> None:
        # The pages of an index in a directory link to files beside them.
        source = path.parent if path.name == "simple" and path.is_dir() else path
        self._mount(str(source.resolve()), source, "-o", "bind,ro")

    def _mount(self, source: str, path: Path, *options: str) -> None:
        target = self._root / path.relative_to("/")
        if target in self._mounted:
            return
        if not target.exists():
            missing = [parent for parent in target.parents if not parent.exists()]
            for directory in reversed(missing):
                directory.mkdir()
                self._made.append(directory)
            if Path(source).is_file():
                target.touch()
            else:
                target.mkdir()
            self._made.append(target)
        subprocess.run(["mount", *options, source, str(target)], check=True)
        self._mounted.append(target)


def copy(instruction: Instruction, stage: Filesystem, source_root: Path, from_context: bool) -> None:
    """Carry out COPY: directories by what is in them, files into a directory or under a new name."""
    *sources, destination = instruction.words(stage.variables)
    if not sources or any(set(word) & set("*?[") for word in sources):
        raise instruction.error("needs sources without wildcards, and a destination")
    ignored = read_ignore(source_root) if from_context else None

    def left_out(directory: str, names: list[str]) -> list[str]:
        place = PurePosixPath(directory).relative_to(source_root)
        return [name for name in names if ignored and (source_root / place / name).is_file() and ignored(place / name)]

    place = stage.root / str(PurePosixPath(stage.directory) / destination).lstrip("/")
    for word in sources:
        source = source_root / word.lstrip("/")
        relative = PurePosixPath(word)
        if not source.exists() or (ignored and source.is_file() and ignored(relative)):
            raise instruction.error(f"names {word}, which does not exist or is left out by .dockerignore")
        if source.is_dir():
            shutil.copytree(source, place, symlinks=True, dirs_exist_ok=True, ignore=left_out)
        elif destination.endswith("/") or len(sources) > 1 or place.is_dir():
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, place / source.name)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, place)


class Builder:
    """The stages of one build, and the sizes and times of their instructions."""

    def __init__(self, directory: Path, arguments: dict[str, str]) -> None:
        self._directory = directory
        self._arguments = arguments
        self._stages: dict[str, Filesystem] = {}
        self.rows: list[tuple[str, str, float, float]] = []  # stage, instruction, seconds, MB

    def build(self, stages: list[Stage]) -> Filesystem:
        """Carry out all stages and return the last."""
        for number, stage in enumerate(stages):
            name = stage.name or ("image" if number == len(stages) - 1 else str(number))
            begin = time.monotonic()
            base = make_base(stage.base, self._directory)
            if number == 0:
                self.rows.append(("base", f"in the place of {stage.base}", time.monotonic() - begin, size_mb(base)))
            root = self._directory / f"stage-{name}"
            subprocess.run(["cp", "-a", str(base), str(root)], check=True)
            self._stages[name] = Filesystem(root)
            for instruction in stage.instructions:
                self._carry_out(instruction, self._stages[name], name)
        return self._stages[name]

    def _carry_out(self, instruction: Instruction, stage: Filesystem, name: str) -> None:
        begin = time.monotonic()
        before = size_mb(stage.root)
        print(f"[{name}] {instruction.name} {instruction.text}"[:118], flush=True)
        variables = stage.variables
        match instruction.name:
            case "ARG":
                stage.arguments |= read_argument(instruction, self._arguments)
            case "ENV":
                stage.environment |= instruction.settings(variables)
            case "LABEL":
                stage.labels |= instruction.settings(variables)
            case "EXPOSE":
                stage.ports += instruction.words(variables)
            case "USER":
                stage.user = expand(instruction.text, variables, instruction)
                stage.account()
            case "WORKDIR":
                stage.directory = str(PurePosixPath(stage.directory) / expand(instruction.text, variables, instruction))
                (stage.root / stage.directory.lstrip("/")).mkdir(parents=True, exist_ok=True)
            case "ENTRYPOINT":
                stage.entrypoint = instruction.exec_form() or ["/bin/sh", "-c", instruction.text]
            case "COPY":
                other = instruction.flags.get("from")
                if other is not None and other not in self._stages:
                    raise instruction.error(f"copies from the stage {other!r}, which is not one before it")
                copy(instruction, stage, self._stages[other].root if other else ROOT, from_context=other is None)
            case "RUN":
                words = instruction.exec_form() or ["/bin/sh", "-c", instruction.text]
                with Mounts(stage.root, of_pip=True) as mounts:
                    command = stage.command(words, stage.arguments | mounts.environment)
                    run_logged(
                        command, self._directory / f"run-{name}-{instruction.line}.log", f"line {instruction.line}"
                    )
        if instruction.name in ("RUN", "COPY"):
            megabytes = size_mb(stage.root) - before
            shown = f"{instruction.name} {instruction.text}"
            self.rows.append((name, shown, time.monotonic() - begin, megabytes))


def report(rows: list[tuple[str, str, float, float]]) -> str:
    lines = [f"{'stage':8} {'instruction':66} {'seconds':>8} {'MB':>8}"]
    lines += [f"{stage:8} {text[:66]:66} {seconds:8.1f} {size:8.1f}" for stage, text, seconds, size in rows]
    image = sum(size for stage, _, _, size in rows if stage == "image")
    lines.append(f"The image adds {image:.0f} MB to its base; the stand-in for the base has {rows[0][3]:.0f} MB.")
    return "\n".join(lines)


def build_and_check(directory: Path, arguments: dict[str, str]) -> None:
    """Build, run and measure; this is what runs inside the namespaces."""
    begin = time.monotonic()
    stages = read_stages((ROOT / "Dockerfile").read_text(), arguments)
    builder = Builder(directory, arguments)
    image = builder.build(stages)
    with Mounts(image.root, of_pip=False):
        check_image(image, directory / "job", directory / "expected")
    text = report(builder.rows)
    (directory / "report.txt").write_text(text + "\n")
    print(f"{text}\nBuilt and checked in {time.monotonic() - begin:.0f} s.")


def need_tools() -> None:
    """Install debootstrap when it is missing, and raise `StepError` where a build cannot work."""
    if os.geteuid() != 0:
        raise StepError("chroot and debootstrap need root: run it as root (sudo make image), or use `docker build .`")
    if not shutil.which("debootstrap"):
        print("Installing through apt: debootstrap")
        quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for words in (["update"], ["install", "--yes", "--no-install-recommends", "debootstrap"]):
            subprocess.run(["apt-get", "-qq", *words], check=True, env=quiet, stdout=subprocess.DEVNULL)
    trial = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True, text=True, check=False
    )
    if trial.returncode:
        raise StepError(f"this machine does not permit mount and process namespaces ({trial.stderr.strip()})")


def run_in_namespaces(directory: Path, keep: bool) -> int:
    """Run this program again in namespaces of its own and return its status; the roots are removed afterwards.

    They are removed from outside, where nothing of the machine is mounted in them.
    """
    # --pdeathsig: unshare dies with this process even by SIGKILL, --kill-child: and all in the namespace with unshare.
    words = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child"]
    process = subprocess.Popen([*words, sys.executable, *sys.argv], env=os.environ | {INSIDE: "1"})
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()
        return 130
    finally:
        process.kill()
        if not keep:
            remove_roots(directory)


def remove_roots(directory: Path) -> None:
    for root in directory.glob("stage-*"):
        shutil.rmtree(root)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--directory", type=Path, default=ROOT / "build" / "image", help="where the roots are built")
    parser.add_argument("--keep", action="store_true", help="keep the finished roots, to look at them with chroot")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE", help="as of docker build")
    options = parser.parse_args()
    arguments = {name: value for name, _, value in (word.partition("=") for word in options.build_arg)}
    directory = options.directory.resolve()
    os.umask(0o022)  # as in Docker's builds: the image's user must be able to read what root installs

    def work() -> int:
        if os.environ.get(INSIDE):
            build_and_check(directory, arguments)
            return 0
        need_tools()
        directory.mkdir(parents=True, exist_ok=True)
        remove_roots(directory)
        prepare_job(directory / "job", directory / "expected")
        return run_in_namespaces(directory, options.keep)

    return exit_status("image", work, DockerfileError, AssertionError)


if __name__ == "__main__":
    sys.exit(main())
