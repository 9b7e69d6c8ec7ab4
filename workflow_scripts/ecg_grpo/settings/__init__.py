"""The configuration: one Pydantic model for each section of `config/config.yaml`.

A stage's program imports its own section's module and no other, so that a change of one section's model is a change
of that stage's code alone. `run.py` puts the sections together for the Snakefile.
"""
