"""``python -m tests.faults [NAME …] [--json]``."""

import sys

from tests.faults.scenarios import main

sys.exit(main([a for a in sys.argv[1:] if not a.startswith("-")], "--json" in sys.argv))
