"""Verification of the session: exhaustive exploration, and random tests against an oracle.

Requires Hypothesis (the extra ``verify``). `client-session verify` runs it and writes the report.
"""
