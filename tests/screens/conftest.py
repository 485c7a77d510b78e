"""The reading of screens is a module of this folder, under a name that no other folder has."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
