"""The asyncio client. Programs import it from `lockstep.aio`."""
