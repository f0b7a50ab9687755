"""Limits of control groups, as the kernel writes them for both versions."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.paths import ROOT

from kdistill.system import control_groups
from kdistill.system.control_groups import cpu_quota

QUOTAS = {
    "version 2": ("0::/pod/container\n", "", {"cpu.max": "{quota} 100000"}),
    "version 1": (
        "4:memory:/else\n3:cpu,cpuacct:/pod/container\n",
        "cpu,cpuacct",
        {"cpu.cfs_quota_us": "{quota}", "cpu.cfs_period_us": "100000"},
    ),
}


@pytest.mark.parametrize("version", QUOTAS)
@pytest.mark.parametrize(
    ("own", "above", "expected"),
    [
        (None, None, None),
        (None, 300_000, 3),
        (400_000, 250_000, 3),  # half a CPU is one
        (20_000, None, 1),
        (None, "none", None),
    ],
)
def test_the_smallest_quota_of_all_groups_counts(
    version: str,
    own: int | None,
    above: int | str | None,
    expected: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    groups, controller, files = QUOTAS[version]
    (tmp_path / "cgroup").write_text(groups)
    monkeypatch.setattr(control_groups, "_OWN_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(control_groups, "_GROUPS", tmp_path / "groups")
    directory = tmp_path / "groups" / controller / "pod" / "container"
    directory.mkdir(parents=True)
    no_limit = "max" if version == "version 2" else "-1"
    for group, quota in ((directory, own), (directory.parent, above)):
        for name, content in files.items() if quota != "none" else ():
            (group / name).write_text(content.format(quota=no_limit if quota is None else quota) + "\n")
    assert cpu_quota() == expected


@pytest.fixture
def group_of_one_cpu() -> Iterator[Path]:
    """A real control group with half a CPU."""
    roots = [root for root in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/cpu")) if (root / "cgroup.procs").exists()]
    if not roots:
        pytest.skip("no control groups are mounted")
    group = roots[-1] / "kdistill-test"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made: {error}")
    try:
        if (group / "cpu.max").exists():
            (group / "cpu.max").write_text("50000 100000")
        elif (group / "cpu.cfs_quota_us").exists():
            (group / "cpu.cfs_quota_us").write_text("50000")
        else:
            pytest.skip("the CPU controller is not switched on in a new control group")
        yield group
    finally:
        group.rmdir()


def test_a_process_in_a_container_starts_as_many_threads_as_it_has_cpus(group_of_one_cpu: Path) -> None:
    script = (
        "import os, pathlib, sys; pathlib.Path(sys.argv[1], 'cgroup.procs').write_text(str(os.getpid())); "
        "import kdistill as kd; print(kd.get_num_threads(), kd.show_config()['cpus'])"
    )
    command = [sys.executable, "-c", script, str(group_of_one_cpu)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={"PATH": ""}, check=False)
    assert run.stdout.split() == ["1", "1"], run.stderr
