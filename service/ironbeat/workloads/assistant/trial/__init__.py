"""The channels' side, played on this machine: their APIs, and the webhooks that they send.

Tests, benchmarks and ``ironbeat assistant try`` talk to these instead of the real channels.
"""
