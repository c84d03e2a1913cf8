"""What a process needs around the rules: clock, ids, configuration, logs, metrics, shutdown."""
