"""The reference part of the documentation, made from what it describes whenever the site is built (`make docs`)."""
