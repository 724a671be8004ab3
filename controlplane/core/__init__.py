"""Pure decisions: no clock, no chance, no I/O. Time and randomness are arguments, effects are return values."""
