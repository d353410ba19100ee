"""The verification: what is promised of a session, checked against an oracle, exhaustively, and at random.

Needs Hypothesis (the extra ``verify``). `client-session verify` runs it and writes the report.
"""
