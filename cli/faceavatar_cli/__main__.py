"""`python -m faceavatar_cli` is the command `faceavatar`."""

from __future__ import annotations

import sys

from faceavatar_cli.main import main

sys.exit(main())
