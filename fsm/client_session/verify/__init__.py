"""Verification of the session: exhaustive exploration, and random tests against an oracle.

Requires Hypothesis (the ``verify`` extra). `client-session verify` runs the verification and writes the report.
"""
