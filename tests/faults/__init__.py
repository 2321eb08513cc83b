"""Faults, really caused: a scenario names load, fault and recovery; the accounting says what held.

Read ``scenarios.py`` first: adding one is adding an entry there. ``suite.py`` runs a whole suite of
its own under supervisord, ``accounting.py`` compares what was asked for with what the ledger and
the tasks' own traces say. ``python -m tests.faults [NAME …] [--json]`` prints a row for each.
"""
