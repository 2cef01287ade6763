"""What a benchmark sets before torch is imported; import it first."""

from __future__ import annotations

import os

# Idle threads of OpenMP would otherwise spin, and take the cores from every other process.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
