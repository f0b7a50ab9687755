"""tools/check_site.py finds what does not fit a page, and nothing on a page that fits."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.paths import ROOT

CHECK: dict[str, Any] = runpy.run_path(str(ROOT / "tools" / "check_site.py"))
FITS = "<p>Text with <code>short</code> code.</p><table><tr><td>a</td><td>b</td></tr></table>"
FAULTS = {
    "wider than the page": '<div style="width: 1100px">wide</div>',
    "command hidden at the right edge": '<div class="language-sh"><pre style="overflow: auto; white-space: pre">'
    f"<code style='display: block; overflow: auto'>{'kdistill ' * 40}</code></pre></div>",
    "broken inside a word": '<p style="width: 80px; word-break: break-all"><code>gradient_accumulation</code></p>',
    "row of 40 lines": f'<table style="width: 30px; line-height: 20px"><tr><td>{"word<br>" * 40}</td></tr></table>',
}


def page(content: str) -> str:
    return f"<!DOCTYPE html><html><body style='margin: 0'><article>{content}</article></body></html>"


def test_a_page_with_faults_is_told_from_one_that_fits(tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, CHECK["BROWSERS"])), None)
    if browser is None:
        pytest.skip("needs Chromium")
    (tmp_path / "fits.html").write_text(page(FITS))
    for number, content in enumerate(FAULTS.values()):
        (tmp_path / f"fault-{number}.html").write_text(page(content))
    found = CHECK["measure"](tmp_path, browser)
    at_1000 = {(name, kind) for width, name, kind, _ in found if width == 1000}
    assert at_1000 == {(f"fault-{number}.html", kind) for number, kind in enumerate(FAULTS)}
