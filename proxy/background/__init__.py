"""What runs beside the requests. Loops and requests meet only in objects that are swapped whole or hold plain numbers."""
