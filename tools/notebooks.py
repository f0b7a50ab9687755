"""The notebooks in notebooks/: run them and write pages with all outputs into docs/, or remove their outputs.

python tools/notebooks.py run [NAME ...]    all, as `make notebooks`, or those named, such as knowledge-distillation;
                                            of all, those that need data beside the checkout are left out without it
python tools/notebooks.py strip             before a commit; a notebook with outputs fails the test suite
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = ROOT / "docs" / "notebooks"
OUTPUT = ROOT / "build" / "notebook"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
LONGEST_CELL = 3600  # seconds
SHARED = ROOT.parent / "shared"
"""Data and models that are too large for the repository; a notebook that reads them begins with their place."""

STYLE = """
:root { color-scheme: light dark; --ink: #1d2730; --faint: #5f6b76; --line: #dde2e7; --code: #f5f7f9; --paper: #fff }
@media (prefers-color-scheme: dark) {
  :root { --ink: #dfe5ea; --faint: #9aa6b1; --line: #38424b; --code: #1f262d; --paper: #14191e }
}
body { margin: 0 auto; padding: 2rem 1.25rem 5rem; max-width: 60rem; background: var(--paper); color: var(--ink);
  font: 16px/1.6 system-ui, sans-serif }
h1, h2, h3 { line-height: 1.25; margin: 2.2em 0 0.6em }
h1 { margin-top: 0.5em }
h1 + h3 { margin-top: -0.4em; font-weight: normal; color: var(--faint) }
a { color: #1f7ac4 }
a.anchor-link, .prompt { display: none }
blockquote { margin: 1em 0; padding: 0.1em 1em; border-left: 3px solid #1f7ac4 }
pre { margin: 0; font: 12.5px/1.5 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere }
.highlight { padding: 0.7em 0.9em; background: var(--code); border: 1px solid var(--line); border-radius: 6px }
.code_cell { margin: 1.1em 0 }
.output_subarea { margin-top: 0.7em; padding-left: 0.9em; overflow-x: auto }
.output_stderr { color: var(--faint) }
table { border-collapse: collapse; font-size: 14px; margin: 0.4em 0 }
th, td { padding: 0.15em 0.8em 0.15em 0; border-bottom: 1px solid var(--line); text-align: left }
img, svg { max-width: 100%; height: auto }
svg, img { background: #fff; border-radius: 6px }
details > summary { cursor: pointer; color: var(--faint); font-size: 14px }
"""


def main() -> None:
    if sys.argv[1:] == ["strip"]:
        for path in NOTEBOOKS:
            notebook = nbformat.read(path, as_version=4)
            strip(notebook)
            nbformat.write(notebook, path)
    elif sys.argv[1:2] == ["run"] and set(sys.argv[2:]) <= {path.stem for path in NOTEBOOKS}:
        chosen = [path for path in NOTEBOOKS if path.stem in sys.argv[2:]] or without_missing_data(NOTEBOOKS)
        shutil.rmtree(OUTPUT, ignore_errors=True)
        PAGES.mkdir(exist_ok=True)
        for path in chosen:
            notebook = nbformat.read(path, as_version=4)
            execute(notebook, path.parent, show=True)
            (PAGES / f"{path.stem}.html").write_text(page(notebook, path.parent))
    else:
        sys.exit(__doc__)


def without_missing_data(paths: Sequence[Path], shared: Path = SHARED) -> list[Path]:
    """Return the notebooks that find their data, and print which others are left out."""
    found = [path for path in paths if shared.is_dir() or f"../../{SHARED.name}/" not in path.read_text()]
    for path in paths:
        if path not in found:
            print(f"skipped: {path.name}, which needs {shared}; its page stays as it is", flush=True)
    return found


def strip(notebook: Any) -> None:
    """Remove everything that running a notebook adds to it."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({name: value for name, value in cell.metadata.items() if name == "tags"})
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None


def with_parameters(notebook: Any, assignments: str) -> None:
    """Insert a cell that overrides parameters after the one with the tag `parameters`, as papermill does."""
    (index,) = (i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    notebook.cells.insert(index + 1, nbformat.v4.new_code_cell(assignments))


def execute(notebook: Any, directory: Path, *, show: bool = False, **kernel_options: Any) -> None:
    """Run all cells in a new kernel. Raises `nbclient.exceptions.CellExecutionError` when a cell fails."""
    from nbclient import NotebookClient

    started = time.monotonic()

    def on_cell_executed(cell: Any, cell_index: int, execute_reply: Any) -> None:
        if show:
            print(f"{time.monotonic() - started:6.0f} s  {cell.id}", flush=True)

    client = NotebookClient(
        notebook,
        timeout=LONGEST_CELL,
        resources={"metadata": {"path": str(directory)}},
        on_cell_executed=on_cell_executed,
        record_timing=False,
    )
    client.execute(**kernel_options)


def page(notebook: Any, directory: Path) -> str:
    """Return an executed notebook as one self-contained HTML file: no scripts, pictures embedded."""
    from nbconvert import HTMLExporter
    from pygments.formatters import HtmlFormatter

    exporter = HTMLExporter(template_name="basic", embed_images=True)
    body, _ = exporter.from_notebook_node(notebook, resources={"metadata": {"path": str(directory)}})
    title = next(line for line in notebook.cells[0].source.splitlines() if line.startswith("# ")).removeprefix("# ")
    dark = HtmlFormatter(style="github-dark", nobackground=True).get_style_defs(".highlight")
    colours = HtmlFormatter(style="default", nobackground=True).get_style_defs(".highlight")
    style = f"{colours}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n{STYLE}"
    head = f'<meta charset="utf-8">\n<meta name="viewport" content="width=device-width">\n<title>{title}</title>'
    return f'<!DOCTYPE html>\n<html lang="en">\n{head}\n<style>\n{style}</style>\n{body}\n</html>\n'


if __name__ == "__main__":
    main()
