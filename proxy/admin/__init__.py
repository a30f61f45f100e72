"""The admin plane: its own port, never reachable over the data port. It shows what others report, no more."""
