"""Schedulers, which run the checks: the protocol, a shared thread, and an asyncio scheduler."""
