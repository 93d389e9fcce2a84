"""The commands of `nllbd`, one module each. They assemble; what they assemble lives elsewhere."""
