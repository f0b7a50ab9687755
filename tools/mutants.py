"""Mutation testing of the core: breaks it in one place after the other and checks that the tests notice.

A mutant flips one sign, index, scale or bound in csrc; the tests of the core must fail on it. Each is built in a copy
below build/mutants, never here. Usage: python tools/mutants.py [--list] [WORD...]; words choose mutants by their text.
The exit status is 1 if a mutant survives that SURVIVORS does not explain.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from mutant_list import MUTANTS, SURVIVORS, Mutant

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / "build" / "mutants"
# The tests most likely to notice a mutant of a file, which run before the other tests of the core.
NEAREST = {
    "kd_loss": ["losses", "ragged_losses"],
    "kd_decoder": ["softmax_loss"],
    "kd_match": ["match_losses"],
    "kd_module_loss": ["losses", "pool"],
    "kd_module_match": ["match_losses", "pool"],
    "kd_adamw": ["optim", "deferred_adamw"],
    "kd_kernels_adamw": ["optim", "deferred_adamw"],
    "kd_kernels_random": ["random"],
    "kd_dropout": ["random", "passes"],
    "kd_kernels_activation": ["layers"],
    "kd_kernels_divergence": ["match_losses"],
    "kd_kernels_product": ["products"],
    "kd_kernels_panels": ["products"],
    "kd_vec_transpose": ["products"],
    "kd_outer": ["products"],
    "kd_engine_f32": ["products"],
    "kd_engine_narrow": ["engines"],
    "kd_engine_results": ["engines"],
    "kd_engine_tiles": ["engines"],
    "kd_engine_dots": ["engines"],
    "kd_engine_bf16_widened": ["engines"],
    "kd_engine_outer": ["engines"],
    "kd_engine_int8_plain": ["engines"],
    "kd_engine_int8_avx2": ["engines"],
    "kd_engine_int8_avx512": ["engines"],
    "kd_engine_bf16_avx512": ["engines"],
    "kd_arithmetic": ["bfloat16_training"],
    "kd_kernels": ["layers"],
    "kd_vec": ["layers"],
    "kd_attention": ["layers"],
    "kd_relative": ["layers", "encoder"],
    "kd_unit": ["encoder"],
    "kd_cpu": ["isa_levels"],
    "kd_pool": ["pool"],
    "kd_embed": ["encoder"],
    "kd_input": ["encoder"],
    "kd_module_gradients": ["deferred_adamw"],
    "kd_head": ["encoder"],
    "kd_span": ["encoder"],
    "kd_encoder": ["encoder"],
    "kd_tensors": ["encoder"],
    "kd_model": ["encoder"],
    "kd_tap": ["taps"],
    "kd_run": ["taps"],
    "kd_layer": ["taps"],
    "kd_picked": ["encoder", "shared_items"],
    "kd_shared": ["shared_items"],
    "kd_projected": ["taps", "narrow_passes"],
    "kd_weights": ["passes", "encoder", "shared_layers"],
    "kd_map": ["encoder"],
    "kd_map_items": ["encoder"],
}
PATIENCE_SECONDS = 900


class Verdict(NamedTuple):
    mutant: Mutant
    caught: bool
    how: str
    seconds: float


def _build(directory: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    quickly = os.environ | {"KDISTILL_DEBUG": "1"}
    return subprocess.run(command, cwd=directory, env=quickly, capture_output=True, text=True, check=False)


def _test(directory: Path, nearest: list[str]) -> tuple[bool, str]:
    """Return whether the tests noticed, and the first that failed."""
    files = [f"tests/core/test_{name}.py" for name in nearest]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files, "tests/core"]
    environment = os.environ | {"PYTHONPATH": str(directory)}
    try:
        run = subprocess.run(
            command,
            cwd=directory,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return True, "hung"
    if run.returncode == 0:
        return False, ""
    failed = [line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if failed:
        return True, failed[0].split(" - ")[0]
    if run.returncode < 0:
        return True, f"died of signal {-run.returncode}"
    raise SystemExit(f"the tests did not run:\n{run.stdout[-2000:]}{run.stderr[-2000:]}")


def try_mutant(mutant: Mutant) -> Verdict:
    """Build the mutant, run the tests and restore the source."""
    start = time.monotonic()
    path = PLACE / "csrc" / mutant.file
    text = path.read_text()
    if text.count(mutant.found) != 1:
        raise SystemExit(f"{mutant.file} has {text.count(mutant.found)} times {mutant.found!r}; expected once")
    path.write_text(text.replace(mutant.found, mutant.put))
    try:
        build = _build(PLACE)
        if build.returncode:
            raise SystemExit(f"{mutant} does not compile:\n{build.stderr[-2000:]}")
        caught, how = _test(PLACE, NEAREST.get(Path(mutant.file).stem, []))
    finally:
        path.write_text(text)
    return Verdict(mutant, caught, how, time.monotonic() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="list the mutants without trying them")
    parser.add_argument("words", nargs="*", help="only mutants with one of these words")
    options = parser.parse_args()
    chosen = [m for m in MUTANTS if not options.words or any(word in str(m) for word in options.words)]
    if options.list:
        print(*chosen, f"{len(chosen)} mutants", sep="\n")
        return
    shutil.rmtree(PLACE, ignore_errors=True)
    ignored = shutil.ignore_patterns("build", "dist", ".*", "__pycache__", "*.so", "*.egg-info")
    shutil.copytree(ROOT, PLACE, ignore=ignored)
    unexplained = 0
    caught = 0
    for mutant in chosen:
        verdict = try_mutant(mutant)
        caught += verdict.caught
        fate = f"caught by {verdict.how}" if verdict.caught else f"SURVIVED: {SURVIVORS.get(mutant, 'unexplained')}"
        unexplained += not verdict.caught and mutant not in SURVIVORS
        print(f"{verdict.seconds:5.0f} s  {mutant}\n         {fate}", flush=True)
    print(f"{len(chosen)} mutants: {caught} caught, {len(chosen) - caught} survived, {unexplained} of them unexplained")
    raise SystemExit(unexplained > 0)


if __name__ == "__main__":
    main()
