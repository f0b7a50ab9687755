"""The reader of Dockerfiles that `make image` builds with, and the project's own Dockerfile as it reads it."""

from __future__ import annotations

import sys
from pathlib import PurePosixPath

import pytest
from support.paths import ROOT

sys.path.insert(0, str(ROOT / "tools"))
from dockerfile import DockerfileError, Ignore, Stage, expand, logical_lines, read_ignore, read_stages


@pytest.fixture
def stages() -> list[Stage]:
    return read_stages((ROOT / "Dockerfile").read_text(), {})


def test_the_image_starts_our_entry_as_an_ordinary_user(stages: list[Stage]) -> None:
    last = {instruction.name: instruction for instruction in stages[-1].instructions}
    assert last["ENTRYPOINT"].exec_form() == ["python", "-m", "kdistill.sagemaker"]
    default = next(each.text for each in stages[-1].instructions if each.name == "ARG")
    user = expand(last["USER"].text, dict([default.split("=")]), last["USER"])
    assert user not in ("", "0", "root")
    label = {"com.amazonaws.sagemaker.capabilities.accept-bind-to-port": "true"}
    assert last["LABEL"].settings({}) == label
    assert last["EXPOSE"].words({}) == ["8080"]


def test_both_stages_begin_with_the_same_base(stages: list[Stage]) -> None:
    assert [stage.name for stage in stages] == ["build", None]
    assert stages[0].base == stages[1].base == "python:3.11-slim-bookworm"
    assert read_stages((ROOT / "Dockerfile").read_text(), {"BASE": "other:1"})[1].base == "other:1"


def test_what_the_image_copies_is_in_its_context_and_nothing_built_is(stages: list[Stage]) -> None:
    ignored = read_ignore(ROOT)
    copies = [each for stage in stages for each in stage.instructions if each.name == "COPY" and not each.flags]
    sources = [word for each in copies for word in each.words({})[:-1]]
    assert {"csrc", "kdistill", "pyproject.toml", "setup.py"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists()
        assert not ignored(PurePosixPath(source))
    for left_out in (
        "kdistill/_core.abi3.so",
        "kdistill/cli/__pycache__/main.pyc",
        "tests/conftest.py",
        "build/x",
        ".git/config",
    ):
        assert ignored(PurePosixPath(left_out))


def test_comments_and_continued_lines_are_read_as_docker_reads_them() -> None:
    text = "# one\nFROM a AS b\nRUN one \\\n    # between\n    && two\n\nCOPY x y\n"
    assert logical_lines(text) == [(2, "FROM a AS b"), (3, "RUN one && two"), (7, "COPY x y")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM a\nVOLUME /x", "line 2: the instruction 'VOLUME' is not known"),
        ("FROM a\nRUN --mount=type=cache,target=/x ls", "line 2: RUN 'ls' has the flag --mount"),
        ("FROM a\nRUN <<EOF", "a here-document"),
        ("RUN ls", "stands before the first FROM"),
        ("FROM a b", "needs IMAGE, or IMAGE AS NAME"),
        ("# nothing", "has no FROM"),
        ("FROM a\nRUN ls \\", "ends with a backslash"),
    ],
)
def test_what_the_reader_does_not_know_is_an_error_that_names_the_line(text: str, message: str) -> None:
    with pytest.raises(DockerfileError, match=message.replace("(", r"\(")):
        read_stages(text, {})


def test_variables_are_put_in_and_other_substitutions_are_an_error() -> None:
    (stage,) = read_stages("FROM a\nENV A=$X/b B='c d'\nUSER ${USER:-root}", {})
    assert stage.instructions[0].settings({"X": "x"}) == {"A": "x/b", "B": "c d"}
    with pytest.raises(DockerfileError, match="a form of substitution"):
        expand(stage.instructions[1].text, {}, stage.instructions[1])


@pytest.mark.parametrize(
    ("path", "left_out"),
    [
        ("a.txt", True),
        ("kept/a.txt", False),
        ("kept/deep/a.txt", False),
        ("kept/deep/b.so", True),
        ("kept/__pycache__/c.pyc", True),
        ("kept/d.sox", False),
    ],
)
def test_the_last_pattern_that_fits_decides(path: str, left_out: bool) -> None:
    ignored = Ignore("# all but\n*\n!kept\n**/*.so\n**/__pycache__\n")
    assert ignored(PurePosixPath(path)) is left_out
