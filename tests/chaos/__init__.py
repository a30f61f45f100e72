"""Faults of every kind in front of a real proxy process: what it does about them, as figures against targets."""
