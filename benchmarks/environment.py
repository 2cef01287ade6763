"""Settings of a benchmark that must precede the import of torch; import this module first."""

from __future__ import annotations

import os

# Idle threads of OpenMP would otherwise spin, and take the cores from every other process.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
