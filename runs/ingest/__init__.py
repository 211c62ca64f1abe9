"""What workers report becomes rows, and waiting runs become orders for workers."""
