"""Where partitions are kept: the port and its back ends."""
