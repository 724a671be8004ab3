"""The I/O that drives the core: watching, pushing, keeping sessions, and the operations that people and programs call."""
