"""What runs beside the requests. Loops and requests meet only in objects swapped whole or made of plain numbers."""
