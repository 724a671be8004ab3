"""Any program in a mesh, without a line of code in it: ``python -m trimtab.run --service orders --port 8000 -- COMMAND``."""
