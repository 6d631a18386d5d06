"""What layers cost, measured and counted: time, memory, operations."""
