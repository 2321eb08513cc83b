"""Where runs execute: the task's attempt, the worker's transport, pool and bootsteps."""
