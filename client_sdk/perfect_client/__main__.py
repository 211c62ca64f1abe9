"""``python -m perfect_client``."""

from __future__ import annotations

import sys

# The worker needs nothing from the current folder, which ``-m`` puts first: an ``email.py`` there would be imported in
# place of the standard library's. Where flows are imported, the loader adds the folders that they need.
if not getattr(sys.flags, "safe_path", False):
    del sys.path[0]

from perfect_client.cli import main

sys.exit(main())
