"""The build of the C extension; everything else is in pyproject.toml.

Environment switches: KDISTILL_BLIS (a BLIS prefix, or the directory with the library and blis.h),
KDISTILL_PORTABLE=1 (no kernels of one processor alone), KDISTILL_DEBUG=1, KDISTILL_SANITIZE=address,undefined,
KDISTILL_COVERAGE=1; CC and CFLAGS as usual.
"""

import os
import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).parent
WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wstrict-prototypes", "-Wvla"]
# Never -ffast-math: it sets flush-to-zero for the whole process and lets sums be reordered.
FLAGS = ["-std=c11", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden", "-D_GNU_SOURCE", *WARNINGS]
# kd_kernels.inc is compiled once per instruction-set level. -std=c11 alone would compile a * b + c as two instructions;
# a fused one rounds once instead of twice and halves the work of a product. Each processor has levels of its own; the
# macro that names it is defined for the whole core.
_FUSED = "-ffp-contract=fast"
_AVX2 = ["-mavx2", "-mfma", _FUSED]
_AVX512 = [*("-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma", _FUSED), "-mprefer-vector-width=512"]
PROCESSOR_LEVELS = {
    "KD_X86": {
        "kd_kernels_avx2.c": _AVX2,
        "kd_kernels_avx512.c": _AVX512,
        "kd_engine_bf16_avx2.c": _AVX2,
        "kd_engine_bf16_avx512.c": [*_AVX512, "-mavx512bf16"],
        "kd_engine_bf16_amx.c": [*_AVX512, "-mavx512bf16", "-mamx-tile", "-mamx-bf16"],
        "kd_engine_int8_avx2.c": _AVX2,
        "kd_engine_int8_avx_vnni.c": [*_AVX2, "-mavxvnni"],
        "kd_engine_int8_avx512.c": [*_AVX512, "-mavx512vnni"],
        "kd_engine_int8_amx.c": [*_AVX512, "-mamx-tile", "-mamx-int8"],
    },
    "KD_ARM64": {"kd_kernels_neon.c": [_FUSED]},  # every 64-bit Arm CPU has NEON
}
PROCESSORS = {"x86_64": "KD_X86", "AMD64": "KD_X86", "aarch64": "KD_ARM64"}
PROCESSOR = "" if os.environ.get("KDISTILL_PORTABLE") else PROCESSORS.get(platform.machine(), "")
LEVEL_FLAGS = PROCESSOR_LEVELS.get(PROCESSOR, {})
OF_OTHERS = {file for levels in PROCESSOR_LEVELS.values() for file in levels} - LEVEL_FLAGS.keys()
NO_BLIS = """
kdistill needs BLIS (its header and library), which was not found in {where}.
  Debian, Ubuntu:  apt install libblis-pthread-dev
  Fedora:          dnf install blis-devel
  conda:           conda install -c conda-forge blis
or point KDISTILL_BLIS at a prefix that has include/blis/blis.h and lib/libblis.a"""


def find_blis() -> tuple[Path, Path]:
    """Return the directory of blis.h and the path of the library.

    The library is the static one, or the shared one where a distribution (Fedora) has no other.
    """
    if prefix := os.environ.get("KDISTILL_BLIS"):
        roots = [Path(prefix).absolute()]
    else:
        roots = [Path(p) for p in (sys.prefix, "/usr", "/usr/local", "/opt/blis")]
    multiarch = f"{platform.machine()}-linux-gnu"
    threading = ("blis-pthread", "blis", "blis-serial", "")
    includes = [Path(base, flavour) for flavour in threading for base in (f"include/{multiarch}", "include", ".")]
    directories = [Path(base, flavour) for flavour in threading for base in (f"lib/{multiarch}", "lib64", "lib", ".")]
    libraries = [directory / name for name in ("libblis.a", "libblis.so") for directory in directories]
    for root in roots:
        headers = [root / include for include in includes if (root / include / "blis.h").is_file()]
        found = [root / library for library in libraries if (root / library).is_file()]
        if headers and found:
            return headers[0], found[0]
    raise SystemExit(NO_BLIS.format(where=", ".join(map(str, roots))))


def switches() -> tuple[list[str], list[str]]:
    """Return the compiler and linker flags that the environment asks for."""
    compile_flags: list[str] = []
    link_flags: list[str] = []
    if os.environ.get("KDISTILL_DEBUG"):
        compile_flags += ["-O1", "-g3", "-fno-omit-frame-pointer"]
    if sanitizers := os.environ.get("KDISTILL_SANITIZE"):
        compile_flags += ["-g", f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all"]
        link_flags += [f"-fsanitize={sanitizers}"]
    if os.environ.get("KDISTILL_COVERAGE"):
        compile_flags += ["--coverage", "-fprofile-update=atomic", "-O1"]
        link_flags += ["--coverage"]
    return compile_flags, link_flags


class BuildCore(build_ext):
    """The build of the core: each C file with the flags of its instruction-set level, BLIS hidden in the module."""

    def build_extension(self, ext: Extension) -> None:
        header, library = find_blis()
        asked, link_flags = switches()
        flags = [*FLAGS, "-isystem", str(header), "-isystem", numpy.get_include(), *asked]
        if PROCESSOR:
            flags.append(f"-D{PROCESSOR}")
        # BLIS up to 0.9 looks its native contexts up by a function that 1.0 dropped.
        if "bli_gks_lookup_nat_cntx" in (header / "blis.h").read_text(errors="replace"):
            flags.append("-DKD_BLIS_0")
        shown = " ".join(flag for flag in flags if not flag.startswith(("/", "-isystem", "-W")))
        flags.append(f'-DKD_COMPILER_FLAGS="{shown}"')
        sources = [s for s in ext.sources if Path(s).name not in OF_OTHERS]
        macros = [("Py_LIMITED_API", "0x030B0000")]

        def compiled(source: str) -> list[str]:
            return self.compiler.compile(
                [source],
                output_dir=self.build_temp,
                macros=macros,
                include_dirs=["csrc", *self.compiler.include_dirs],
                extra_postargs=[*flags, *LEVEL_FLAGS.get(Path(source).name, [])],
                depends=ext.depends,
            )

        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:  # each waits for a compiler
            objects = [each for found in threads.map(compiled, sources) for each in found]
        self.compiler.link_shared_object(
            objects,
            self.get_ext_fullpath(ext.name),
            extra_postargs=[str(library), "-Wl,--exclude-libs,ALL", "-lm", "-lpthread", *link_flags],
            target_lang="c",
        )


setup(
    ext_modules=[
        Extension(
            "kdistill._core",
            sources=sorted(str(p.relative_to(HERE)) for p in (HERE / "csrc").rglob("*.c")),
            depends=sorted(str(p.relative_to(HERE)) for p in (HERE / "csrc").rglob("*.[hi]*")),
            py_limited_api=True,
        )
    ],
    cmdclass={"build_ext": BuildCore},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
