"""How fast the harness itself is: ratios within one run, because times on shared machines wander by 2x.

``python -m benchmarks`` runs them all and writes a table and JSON; see ``docs/benchmarks.md``.
"""
