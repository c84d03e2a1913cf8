"""The Python client. Programs import it from `lockstep` (blocking) or `lockstep.aio` (asyncio)."""
