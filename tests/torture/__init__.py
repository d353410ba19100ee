"""Faults on purpose: kills, failing system calls, power cuts, crowds of processes, forks, threads, hostile files.

Each fault is run small by `test_torture.py` and whole by ``make torture``, which prints one table.
"""
