"""Day-to-day operation of the suite's hosts: ``fab --list``, ``fab --help restart``."""

import sys
from pathlib import Path

# A laptop that operates hosts needs requirements/ops.txt and this checkout, and no more.
sys.path.append(str(Path(__file__).parent / "service"))

from scripts.ops import documents_tasks, schedule_tasks
from scripts.ops.tasks import namespace

namespace.add_collection(schedule_tasks.namespace)
namespace.add_task(documents_tasks.canary)
namespace.add_task(documents_tasks.rollback_rq)

__all__ = ["namespace"]
