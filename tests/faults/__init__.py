"""Faults, really caused: a scenario names load, fault and recovery; the accounting says what held.

Read ``scenario.py`` first, then one of the modules with scenarios (``processes.py``, ``stores.py``,
``stuck.py``, ``disk.py``, ``clock.py``): adding one is adding an entry to its ``SCENARIOS``.
``suite.py`` runs a whole suite of its own under supervisord (its programs read ``preload``),
``elsewhere.py`` programs of another host beside it, ``network.py`` what lies between;
``accounting.py`` compares what was asked for with what the ledger and the tasks' own traces say.
``python -m tests.faults --help`` runs them.
"""
