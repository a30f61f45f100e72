"""The admin plane: its own port, never reachable over the data port. It reads what others report and decides nothing."""
