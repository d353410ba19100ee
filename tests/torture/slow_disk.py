"""A slow disk: a library, loaded before all others, whose ``fsync`` takes a while."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

from torture.fault import CannotRunError

if TYPE_CHECKING:
    from pathlib import Path

_SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
#define DELAYED(name) \\
    int name(int descriptor) { \\
        struct timespec delay = {%(seconds)d, %(nanoseconds)d}; \\
        int (*real)(int) = (int (*)(int)) dlsym(RTLD_NEXT, #name); \\
        while (nanosleep(&delay, &delay)); \\
        return real(descriptor); \\
    }
DELAYED(fsync)
DELAYED(fdatasync)
"""


def delay_fsync(folder: Path, seconds: float) -> dict[str, str]:
    """Return environment variables with which each fsync of a new process takes this much longer.

    Raises:
        CannotRunError: there is no C compiler.

    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        message = "needs a C compiler (apt-get install gcc)"
        raise CannotRunError(message)
    source, library = folder / "slow_disk.c", folder / "slow_disk.so"
    whole, fraction = divmod(seconds, 1)
    source.write_text(_SOURCE % {"seconds": whole, "nanoseconds": fraction * 1e9}, encoding="utf-8")
    command = [compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # our own source
    if done.returncode:
        message = f"the C compiler cannot build a shared library: {done.stderr.strip()}"
        raise CannotRunError(message)
    return {"LD_PRELOAD": str(library)}
