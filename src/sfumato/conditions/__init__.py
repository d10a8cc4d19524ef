"""What images can be asked for, and batches of it as values."""
