"""The library that the programs of the workflow share, one module a subject."""
