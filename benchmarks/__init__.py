"""What the session costs, side by side with the least that could do its work: ``python -m benchmarks``.

Absolute times differ from machine to machine, so every figure stands beside one of the same run: a hand-written class,
two state machine libraries, bare writing, bare parsing. Installed nowhere.
"""
