"""Inputs that failed in the field, each played through the real program against a venue that says exactly that."""
