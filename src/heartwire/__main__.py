"""`python -m heartwire` is the `heartwire` command."""

from __future__ import annotations

import sys

from heartwire.cli import main

sys.exit(main())
