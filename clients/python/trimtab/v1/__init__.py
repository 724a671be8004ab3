"""The wire contract, generated from ``proto/trimtab/v1``. The prose is in the ``.proto`` files."""
