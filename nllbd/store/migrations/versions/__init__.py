"""The steps, one file each, named after its revision."""
