"""What runs the checks: the scheduler protocol, a shared thread, and asyncio."""
