"""The suite on one machine of its own: what ``scripts/up`` does once its environment is there.

``installation`` keeps what makes this installation this one (settings, secrets, ports),
``supervised`` talks to its supervisord, ``bringing`` goes up and down, ``progress`` shows it.
"""
