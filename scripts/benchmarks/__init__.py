"""What Ironbeat does in a second, and how long it takes, beside its peers in the same run.

``scripts/bench`` runs these; docs/benchmarks.md says what is measured and how. Every system is
measured in every round, the rounds are interleaved, and medians are shown: so the ratios hold on a
machine that does other things meanwhile, though the absolute figures do not.
"""
