"""Benchmarks of a session against minimal implementations: ``python -m benchmarks``.

Absolute times vary between machines, so most figures are ratios to a reference measured in the same run: a
hand-written class, two state machine libraries, a bare file write or bare XML parsing. Wheels omit this package.
"""
