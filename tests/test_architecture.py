"""The rules of docs/architecture.md, checked on the sources. The order of the rooms is read from that page."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
C_FILES = sorted(path for path in (ROOT / "csrc").rglob("*") if path.suffix in {".c", ".h", ".inc"})
PYTHON_FILES = sorted((ROOT / "kdistill").rglob("*.py"))

# What CPython's API takes as pointers to non-const: definitions, and the names of keyword arguments.
CPYTHON_TABLE = re.compile(r"\bPy(ModuleDef|MethodDef|GetSetDef|MemberDef|Type)(_Slot|_Spec)?\b|char \*\w+\[\]$")
FORBIDDEN_CALLS = {
    "malloc", "calloc", "realloc", "free", "aligned_alloc", "posix_memalign", "strdup",
    "exit", "_exit", "abort", "assert", "printf", "fprintf", "puts", "putchar", "perror",
}  # fmt: skip


def by_name(path: Path) -> str:
    return path.name


def rooms(heading: str) -> list[str]:
    """The first fenced block under `## heading`, without its descriptions: what stands before two spaces or more."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    block = re.search(rf"^## {heading}\n.*?^```text\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert block is not None, f"docs/architecture.md has no list of rooms under '## {heading}'"
    return block[1].splitlines()


def c_rooms() -> list[str]:
    """All C rooms from the lowest to the highest: the words after the layer's name on each line."""
    return [room for line in rooms("C rooms") for room in line.split()[1:]]


def skin_rooms() -> list[str]:
    (line,) = (line for line in rooms("C rooms") if line.startswith("skin"))
    return line.split()[1:]


def python_rooms() -> list[str]:
    """All Python modules from the lowest to the highest: the first word of each line."""
    return [line.split()[0] for line in rooms("Python rooms")]


def c_room(name: str) -> str:
    """Return the room of a C file: the longest room that its name starts with (kd_kernels_avx2.c), or its own name."""
    stem = Path(name).stem
    owners = [room for room in c_rooms() if stem == room or stem.startswith(f"{room}_")]
    return max(owners, key=len, default=stem)


def includes(path: Path) -> list[str]:
    return re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', path.read_text(), re.MULTILINE)


def code(path: Path) -> str:
    """A C file without comments, preprocessor lines and the contents of strings."""
    text = re.sub(r"/\*.*?\*/|//[^\n]*", " ", path.read_text(), flags=re.DOTALL)
    text = re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", "", text, flags=re.MULTILINE)
    return re.sub(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'', '""', text)


def declarations(text: str) -> list[str]:
    """What is declared at file scope, each body shown as `{}`, and what is declared `static` inside functions."""
    static = re.findall(r"\bstatic\b[^;={]*", text)
    body = re.compile(r"\{[^{}]*\}")
    while body.search(text):
        text = body.sub("@", text)
    outer = re.findall(r"[^;@]*\)\s*@|[^;]+", text)  # a function with its body, or anything up to its semicolon
    return [" ".join(declaration.split("=")[0].replace("@", "{}").split()) for declaration in outer + static]


def mutable_variables(text: str) -> list[str]:
    """Declarations of variables that can be written: neither functions nor types nor constants."""
    result = []
    for declaration in declarations(text):
        words = re.sub(r"__attribute__\s*\(\(.*?\)\)|_Alignas\s*\([^)]*\)", "", declaration).strip()
        is_type = words.startswith("typedef") or re.fullmatch(r"(struct|union|enum)( \w+)?( \{\})?", words)
        is_function = re.search(r"\w\s*\((?!\s*\*)", words)
        is_constant = re.search(r"\bconst\b[^*]*$", words)
        if words and not (is_type or is_function or is_constant):
            result.append(words)
    return result


@pytest.mark.parametrize("path", C_FILES, ids=by_name)
def test_c_file_includes_only_its_own_room_and_lower_ones(path: Path) -> None:
    order = c_rooms()
    own = order.index(c_room(path.name))
    upward = [name for name in includes(path) if c_room(name) in order and order.index(c_room(name)) > own]
    assert not upward, f"{path.name} includes higher rooms"


@pytest.mark.parametrize("path", C_FILES, ids=by_name)
def test_c_file_lies_in_the_folder_of_its_layer_and_is_included_by_that_path(path: Path) -> None:
    (layer,) = (line.split()[0] for line in rooms("C rooms") if c_room(path.name) in line.split()[1:])
    assert path.parent == ROOT / "csrc" / layer
    ours = [name for name in includes(path) if Path(name).name.startswith("kd_")]
    assert all((ROOT / "csrc" / name).is_file() for name in ours), f"{path.name} includes {ours}"


@pytest.mark.parametrize("path", [path for path in C_FILES if path.suffix == ".c"], ids=by_name)
def test_c_file_includes_its_own_header_first(path: Path) -> None:
    first = next(iter(includes(path)), "")
    assert Path(first).name.startswith("kd_"), f"{path.name} opens with <{first}>"
    assert c_room(first) == c_room(path.name) or c_room(path.name) in skin_rooms()


def test_every_c_file_has_its_room_and_every_room_a_file() -> None:
    assert {c_room(path.name) for path in C_FILES} == set(c_rooms())


@pytest.mark.parametrize("path", C_FILES, ids=by_name)
def test_only_the_skin_knows_python(path: Path) -> None:
    known = [name for name in includes(path) if name == "Python.h" or name.startswith("numpy/")]
    assert not known or c_room(path.name) in skin_rooms(), f"{path.name} includes {known}"


@pytest.mark.parametrize("path", C_FILES, ids=by_name)
def test_only_kd_outer_knows_blis(path: Path) -> None:
    known = [name for name in includes(path) if "blis" in name.lower()]
    assert not known or c_room(path.name) == "kd_outer", f"{path.name} includes {known}"


@pytest.mark.parametrize("path", [path for path in C_FILES if c_room(path.name) != "kd_pool"], ids=by_name)
def test_c_neither_allocates_nor_ends_nor_prints(path: Path) -> None:
    called = set(re.findall(r"\b(\w+)\s*\(", code(path))) & FORBIDDEN_CALLS
    assert not called, f"{path.name} calls {sorted(called)}"


@pytest.mark.parametrize("path", [path for path in C_FILES if c_room(path.name) != "kd_pool"], ids=by_name)
def test_c_keeps_no_mutable_state(path: Path) -> None:
    kept = mutable_variables(code(path))
    if c_room(path.name) in skin_rooms():
        kept = [declaration for declaration in kept if not CPYTHON_TABLE.search(declaration)]
    assert not kept, f"{path.name} keeps mutable state"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("static int counter;", 1),
        ("int shared = 3;", 1),
        ("static const char *names[] = {0};", 1),
        ("static int (*hook)(int) = 0;", 1),
        ("void f(void) { static float scratch[4]; }", 1),
        ("static const char *const names[] = {0};", 0),
        ("const kd_kernels table = {1};", 0),
        ("static int f(int x) { int y = x; return y; }", 0),
        ("typedef struct kd_x { int a; } kd_x; struct kd_y { int b; }; enum { N = 3 }; enum kd_z { A };", 0),
        ("float f(const float *x, ptrdiff_t n);", 0),
    ],
)
def test_mutable_state_is_recognised(text: str, expected: int) -> None:
    assert len(set(mutable_variables(text))) == expected


@pytest.mark.parametrize("path", C_FILES, ids=by_name)
def test_c_file_is_at_most_500_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 500


def test_build_keeps_ieee_arithmetic_and_one_binary_for_all_cpus() -> None:
    constants = (
        node for node in ast.walk(ast.parse((ROOT / "setup.py").read_text())) if isinstance(node, ast.Constant)
    )
    flags = {flag for constant in constants for flag in str(constant.value).split()}
    assert "-O3" in flags
    assert not flags & {"-ffast-math", "-Ofast", "-funsafe-math-optimizations", "-march=native"}


def imported_rooms(path: Path) -> set[str]:
    """Modules of the package that a module imports anywhere; "__init__" when it asks the package itself for a name."""
    modules = {other.stem for other in PYTHON_FILES} | {"_core"}
    result = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = ".".join(["kdistill", node.module or ""]).rstrip(".") if node.level else node.module or ""
            names = [f"{package}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            first, *rest = name.split(".")
            if first == "kdistill" and rest != ["__version__"]:  # a constant that is there before any room is
                result.add(rest[0] if rest and rest[0] in modules else "__init__")
    return result


def test_every_python_module_has_its_place() -> None:
    assert {path.stem for path in PYTHON_FILES} | {"_core"} == set(python_rooms())


@pytest.mark.parametrize("path", PYTHON_FILES, ids=by_name)
def test_python_module_imports_only_lower_ones(path: Path) -> None:
    order = python_rooms()
    higher = {name for name in imported_rooms(path) if order.index(name) >= order.index(path.stem)}
    assert not higher, f"{path.name} imports higher rooms"


@pytest.mark.parametrize("path", PYTHON_FILES, ids=by_name)
def test_only_peers_knows_who_is_measured_beside_us(path: Path) -> None:
    """PyTorch and the others are never needed: `kdistill bench` measures them where they are installed."""
    imported = {name.split(".")[0] for node in ast.walk(ast.parse(path.read_text())) for name in _names_imported(node)}
    peers = imported & {"torch", "transformers", "onnx", "onnxruntime", "openvino"}
    assert not peers or path.stem == "peers", peers


def _names_imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []


def test_importing_every_module_loads_only_numpy_and_the_standard_library() -> None:
    script = """
import importlib, sys
before = set(sys.modules)
import kdistill
for name in sys.argv[1:]:
    importlib.import_module(f"kdistill.{name}")
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*sorted(loaded - set(sys.stdlib_module_names)))
"""
    modules = [path.stem for path in PYTHON_FILES if path.stem not in {"__init__", "__main__"}]
    for asked in ([], modules):
        command = [sys.executable, "-c", script, *asked]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        assert set(run.stdout.split()) <= {"kdistill", "numpy"}
