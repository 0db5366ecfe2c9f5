"""Small against large batch, with remedies."""
