"""How long a waiting OpenMP thread spins before it sleeps. This module loads no torch: see `bound_spinning`."""

from __future__ import annotations

import os

CHOICES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")  # variables by which a user has chosen already

SPINS = 2000  # more costs a multiple beside busy processes, see docs/measurements.md


def bound_spinning() -> None:
    """Let OpenMP threads that wait spin `SPINS` times, then sleep; what the user has chosen in `CHOICES` stays.

    By default libgomp spins 300,000 times, which takes milliseconds. Where the operating system gives a core to another
    process, the other threads spend them at every barrier. libgomp reads its environment as it is loaded, so this must
    be called before torch is imported. Processes that this one starts inherit the choice.
    https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html
    """
    if not any(name in os.environ for name in CHOICES):
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)


def described() -> str:
    """The choice in force, as `NAME=value`."""
    return ", ".join(f"{name}={os.environ[name]}" for name in CHOICES if name in os.environ) or "libgomp's default"
