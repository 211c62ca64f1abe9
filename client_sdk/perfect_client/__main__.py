"""``python -m perfect_client``."""

from __future__ import annotations

import sys

from perfect_client.cli import main

sys.exit(main())
