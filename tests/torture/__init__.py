"""Fault injection: kills, system call errors, power cuts, concurrent processes, forks, threads and hostile files.

`test_torture.py` runs a few cases of each fault. ``make torture`` runs all cases and prints a table.
"""
